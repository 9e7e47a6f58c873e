// promcheck reads what the operator says on /metrics and what we tell Prometheus and Grafana about it, with Prometheus' own
// parsers: the text as a scrape would, with the lint of `promtool check metrics`; the rules as `promtool check rules`;
// and every query of rules and dashboard, which must find a series in that text.
//
//	promcheck METRICS RULES DASHBOARD
//
// Problems go to standard error, one a line; exit code 1 if there are any.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/prometheus/prometheus/model/labels"
	"github.com/prometheus/prometheus/model/rulefmt"
	"github.com/prometheus/prometheus/promql/parser"
)

// Series that others have, or that only some operators have, with the labels they may be asked for.
var elsewhere = map[string]string{
	"kube_deployment_status_replicas_available": "namespace deployment",
	"leader_election_master_status":             "name",
}

// Labels that a scrape adds.
const scraped = "job instance"

var problems int

func problem(format string, arguments ...any) {
	problems++
	fmt.Fprintf(os.Stderr, format+"\n", arguments...)
}

func main() {
	if len(os.Args) != 4 {
		fmt.Fprintln(os.Stderr, "usage: promcheck METRICS RULES DASHBOARD")
		os.Exit(2)
	}
	series := readMetrics(read(os.Args[1]))
	queries := readRules(os.Args[2], read(os.Args[2]))
	queries = append(queries, readDashboard(read(os.Args[3]))...)
	for _, query := range queries {
		query.check(series)
	}
	fmt.Printf("%d series, %d queries, %d problems\n", len(series), len(queries), problems)
	if problems > 0 {
		os.Exit(1)
	}
}

func read(path string) []byte {
	text, err := os.ReadFile(path)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	return text
}

// readMetrics gives all series by name and labels, those that make up a histogram included.
func readMetrics(text []byte) []map[string]string {
	lint, err := promlint.New(bytes.NewReader(text)).Lint()
	if err != nil {
		problem("metrics: %v", err)
	}
	for _, found := range lint {
		problem("metrics: %s: %s", found.Metric, found.Text)
	}
	var text2families expfmt.TextParser
	families, err := text2families.TextToMetricFamilies(bytes.NewReader(text))
	if err != nil {
		problem("metrics: %v", err)
	}
	var series []map[string]string
	for name, family := range families {
		if family.GetHelp() == "" || family.GetType() == dto.MetricType_UNTYPED || len(family.Metric) == 0 {
			problem("metrics: %s: no help, type or sample", name)
		}
		names := []string{name}
		if family.GetType() == dto.MetricType_HISTOGRAM {
			names = []string{name + "_bucket", name + "_sum", name + "_count"}
		}
		seen := map[string]bool{}
		for _, metric := range family.Metric {
			if key := fmt.Sprint(metric.Label); seen[key] {
				problem("metrics: %s: %s stands there twice", name, key)
			} else {
				seen[key] = true
			}
			for _, name := range names {
				one := map[string]string{model.MetricNameLabel: name}
				for _, label := range metric.Label {
					one[label.GetName()] = label.GetValue()
				}
				if strings.HasSuffix(name, "_bucket") {
					one["le"] = "1"
				}
				series = append(series, one)
			}
		}
	}
	return series
}

type query struct{ where, text string }

func readRules(path string, text []byte) []query {
	groups, errs := rulefmt.Parse(text, false)
	for _, err := range errs {
		problem("%s: %v", path, err)
	}
	if groups == nil {
		return nil
	}
	var queries []query
	for _, group := range groups.Groups {
		for _, rule := range group.Rules {
			queries = append(queries, query{"alert " + rule.Alert, rule.Expr})
			if rule.Labels["severity"] == "" || rule.Annotations["summary"] == "" || rule.Annotations["description"] == "" {
				problem("alert %s: severity, summary and description are needed", rule.Alert)
			}
		}
	}
	if len(queries) == 0 {
		problem("%s: no rules", path)
	}
	return queries
}

func readDashboard(text []byte) []query {
	var dashboard struct {
		Title  string
		Panels []struct {
			Title   string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal(text, &dashboard); err != nil {
		problem("dashboard: %v", err)
		return nil
	}
	var queries []query
	for _, panel := range dashboard.Panels {
		for _, target := range panel.Targets {
			// What Grafana puts in the place of its variables.
			expression := strings.NewReplacer("$__rate_interval", "1m", "$__range", "6h", "$instance", ".*").Replace(target.Expr)
			queries = append(queries, query{"panel " + panel.Title, expression})
		}
	}
	if dashboard.Title == "" || len(queries) == 0 {
		problem("dashboard: no title or no queries")
	}
	return queries
}

// check parses the query; each selector must match a series.
func (q query) check(series []map[string]string) {
	expression, err := parser.ParseExpr(q.text)
	if err != nil {
		problem("%s: %v", q.where, err)
		return
	}
	parser.Inspect(expression, func(node parser.Node, _ []parser.Node) error {
		if selector, ok := node.(*parser.VectorSelector); ok && !isKnown(selector, series) {
			problem("%s: no series matches %s", q.where, selector)
		}
		return nil
	})
}

func isKnown(selector *parser.VectorSelector, series []map[string]string) bool {
	if allowed, ok := elsewhere[selector.Name]; ok {
		for _, matcher := range selector.LabelMatchers {
			if matcher.Name != model.MetricNameLabel && !isWord(allowed+" "+scraped, matcher.Name) {
				return false
			}
		}
		return true
	}
	for _, one := range series {
		if matches(selector.LabelMatchers, one) {
			return true
		}
	}
	return false
}

func matches(matchers []*labels.Matcher, series map[string]string) bool {
	for _, matcher := range matchers {
		value, ok := series[matcher.Name]
		if !isWord(scraped, matcher.Name) && (!ok || !matcher.Matches(value)) {
			return false
		}
	}
	return true
}

func isWord(words, word string) bool {
	for _, one := range strings.Fields(words) {
		if one == word {
			return true
		}
	}
	return false
}
