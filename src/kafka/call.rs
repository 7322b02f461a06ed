//! One request of any API over a connection, with `kafka-protocol`'s codecs.

use bytes::{BufMut, Bytes, BytesMut};
use kafka_protocol::messages::api_versions_request::ApiVersionsRequest;
use kafka_protocol::messages::{ApiVersionsResponse, RequestHeader, ResponseHeader};
use kafka_protocol::protocol::{Decodable, Encodable, HeaderVersion, Request, StrBytes};

use super::client::Error;
use super::connection::Connection;
use super::versions::{API_VERSIONS, Api};

/// The broker does not speak the version of `ApiVersions` that it was asked in.
const UNSUPPORTED_VERSION: i16 = 35;

impl Connection {
    /// Asks with an exact version.
    pub(super) async fn call<R: Request>(
        &self,
        api: &Api,
        version: i16,
        request: &R,
    ) -> Result<R::Response, Error> {
        let mut frame = self.ask(api, version, request).await?;
        self.read::<R::Response>(api, &mut frame, version)
    }

    /// Which versions the broker speaks.
    pub(super) async fn api_versions(&self) -> Result<ApiVersionsResponse, Error> {
        let request = ApiVersionsRequest::default()
            .with_client_software_name(StrBytes::from_static_str("tidegate"))
            .with_client_software_version(StrBytes::from_static_str(env!("CARGO_PKG_VERSION")));
        let mut version = API_VERSIONS.max;
        let mut frame = self.ask(&API_VERSIONS, version, &request).await?;
        // A broker that is too old for the question answers in version 0: correlation id, then the
        // code.
        let code = frame.get(4..6).and_then(|code| code.first_chunk::<2>());
        if code.map(|code| i16::from_be_bytes(*code)) == Some(UNSUPPORTED_VERSION) {
            version = 0;
            let request = ApiVersionsRequest::default();
            frame = self.ask(&API_VERSIONS, version, &request).await?;
        }
        let answer = self.read::<ApiVersionsResponse>(&API_VERSIONS, &mut frame, version)?;
        match answer.error_code {
            0 => Ok(answer),
            code => Err(Error::Code {
                what: "ask for API versions",
                code,
            }),
        }
    }

    async fn ask<R: Request>(&self, api: &Api, version: i16, request: &R) -> Result<Bytes, Error> {
        let id = self.next_id();
        let mut frame = self.frame_head(api.key, version, id, R::header_version(version))?;
        request
            .encode(&mut frame, version)
            .map_err(|e| self.unsayable(&e))?;
        let length = i32::try_from(frame.len() - 4).unwrap_or(i32::MAX);
        if let Some(head) = frame.first_chunk_mut::<4>() {
            *head = length.to_be_bytes();
        }
        self.send(id, vec![frame.freeze()]).await
    }

    /// The begin of a request: four bytes for its length, and its header.
    pub(super) fn frame_head(
        &self,
        key: i16,
        version: i16,
        correlation_id: i32,
        header_version: i16,
    ) -> Result<BytesMut, Error> {
        let mut frame = BytesMut::with_capacity(256);
        frame.put_i32(0);
        let header = RequestHeader::default()
            .with_request_api_key(key)
            .with_request_api_version(version)
            .with_correlation_id(correlation_id)
            .with_client_id(Some(self.client_id().clone()));
        header
            .encode(&mut frame, header_version)
            .map_err(|e| self.unsayable(&e))?;
        Ok(frame)
    }

    /// Reads an answer with its header. One that does not parse closes the connection.
    pub(super) fn read<A: Decodable + HeaderVersion>(
        &self,
        api: &Api,
        frame: &mut Bytes,
        version: i16,
    ) -> Result<A, Error> {
        decode(api, frame, version).map_err(|what| self.malformed(what))
    }

    /// A request that cannot be encoded: nothing was sent.
    pub(super) fn unsayable(&self, error: &dyn std::fmt::Display) -> Error {
        Error::Connect {
            address: self.address().to_string(),
            source: std::io::Error::other(error.to_string()),
        }
    }
}

/// An answer behind its header. Its counts are checked before the codec believes them.
pub(super) fn decode<A: Decodable + HeaderVersion>(
    api: &Api,
    frame: &mut Bytes,
    version: i16,
) -> Result<A, String> {
    ResponseHeader::decode(frame, A::header_version(version)).map_err(|e| e.to_string())?;
    if !api.answer.fits(frame, version) {
        return Err(format!("an answer to {} that lies", api.what));
    }
    A::decode(frame, version).map_err(|error| error.to_string())
}
