//! The way to the API server through a proxy: an HTTP proxy (CONNECT) or SOCKS 5.

use ureq::unversioned::transport::{ConnectProxyConnector, ConnectionDetails, Connector, SocksConnector, Transport};

use super::config::Proxy;

/// Connects through the proxy, if one is configured. All that goes wrong before the server is reached is an error of the proxy, and
/// certainly nothing was sent to the server then.
#[derive(Debug)]
pub(super) struct ProxyConnector;

impl<In: Transport> Connector<In> for ProxyConnector {
    type Out = Box<dyn Transport>;

    fn connect(&self, details: &ConnectionDetails<'_>, _: Option<In>) -> Result<Option<Self::Out>, ureq::Error> {
        if details.config.proxy().is_none() {
            return Ok(None);
        }
        let connector = ().chain(SocksConnector::default()).chain(ConnectProxyConnector::default());
        match connector.connect(details, None) {
            Ok(transport) => Ok(transport.map(Transport::boxed)),
            Err(error @ ureq::Error::Timeout(_)) => Err(error),
            Err(ureq::Error::ConnectProxyFailed(reason)) => Err(ureq::Error::ConnectProxyFailed(reason)),
            Err(error) => Err(ureq::Error::ConnectProxyFailed(error.to_string())),
        }
    }
}

/// The proxy as the HTTP client takes it.
pub(super) fn proxy(proxy: &Proxy) -> Option<ureq::Proxy> {
    // Its URL was checked already.
    ureq::Proxy::new(&proxy.url).ok()
}
