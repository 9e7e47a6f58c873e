//! What was measured, beside its control and its budget.

/// What a value is held against.
#[derive(Clone, Copy)]
pub enum Budget {
    /// Nothing: it is there to be read.
    None,
    /// It must not be more.
    AtMost(f64),
}

/// The rows so far.
#[derive(Default)]
pub struct Table(Vec<[String; 5]>);

impl Table {
    /// One more row; it is printed at once too, since the whole takes minutes.
    pub fn row(&mut self, what: &str, control: &str, value: f64, budget: Budget) {
        let (limit, result) = match budget {
            Budget::None => (String::new(), ""),
            Budget::AtMost(limit) => (plain(limit), if value <= limit { "met" } else { "MISSED" }),
        };
        println!("{what}: {} {control} {result}", plain(value));
        self.0.push([what.to_owned(), control.to_owned(), plain(value), limit, result.to_owned()]);
    }

    /// All rows, in columns.
    pub fn print(&self) {
        let head = ["what", "beside", "measured", "budget", "result"].map(str::to_owned);
        let rows: Vec<_> = [&head].into_iter().chain(&self.0).collect();
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: [usize; 5] = std::array::from_fn(width);
        println!();
        for [what, control, value, budget, result] in rows {
            let [w0, w1, w2, w3, _] = widths;
            println!("{what:w0$}  {control:w1$}  {value:>w2$}  {budget:>w3$}  {result}");
        }
    }
}

/// Whole numbers without a point, others with two digits after it.
fn plain(value: f64) -> String {
    if value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}
