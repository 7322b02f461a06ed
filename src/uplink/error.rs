//! What Kafka's error codes mean for a batch: one table.
//!
//! Codes: <https://kafka.apache.org/protocol#protocol_error_codes>. With `acks=all` some of them
//! come *after* the leader has appended (`DelayedProduce` answers 3, 6, 7, 20 and 56 for a batch
//! that waits for its followers), so these say nothing about the batch's fate. A code that is not
//! in the table is of unknown fate too.
// tidy: table

use std::fmt;

use crate::kafka::client::Error;

/// Why a batch was not acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SendError {
    /// Surely not appended: again after a wait.
    Retry(Cause),
    /// Perhaps appended: ask, then the same bytes again.
    Unknown(Cause),
    /// Not appended: too large for the topic.
    TooLarge(Cause),
    /// Not appended, and never will be. The records that the broker blames, by index in the batch.
    Rejected(Cause, Vec<(usize, String)>),
    /// Not appended, for want of a right: hold the stream, try slowly.
    Denied(Cause),
    /// The topic is not there, or another is under its name: hold the stream, look again.
    Gone(Cause),
    /// The sequence is not the one the broker expects: ask.
    OutOfOrder(Cause),
    /// A higher epoch has written here: ask who.
    Fenced(Cause),
    /// The run has no identity in this cluster: give the stream one.
    NoIdentity,
}

impl SendError {
    /// Whether this try surely appended nothing.
    #[must_use]
    pub fn surely_not_appended(&self) -> bool {
        match self {
            Self::Unknown(_) => false,
            Self::Gone(cause) => cause.code == Some(UNKNOWN_TOPIC_ID),
            _ => true,
        }
    }

    /// What happened, for a log line.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Retry(cause)
            | Self::Unknown(cause)
            | Self::TooLarge(cause)
            | Self::Rejected(cause, _)
            | Self::Denied(cause)
            | Self::Gone(cause)
            | Self::OutOfOrder(cause)
            | Self::Fenced(cause) => cause.clone(),
            Self::NoIdentity => Cause::text("no identity in this cluster"),
        }
    }
}

/// What happened: an error code, words, or both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    /// Kafka's code.
    pub code: Option<i16>,
    /// Words: the broker's, or ours.
    pub text: String,
}

impl Cause {
    /// A cause without a code.
    pub fn text(text: impl Into<String>) -> Self {
        Self {
            code: None,
            text: text.into(),
        }
    }

    /// A code, with the broker's words if it sent some.
    #[must_use]
    pub fn code(code: i16, words: Option<&str>) -> Self {
        Self {
            code: Some(code),
            text: words.map_or_else(|| name(code).to_owned(), ToOwned::to_owned),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) if self.text == name(code) => write!(f, "{} ({code})", self.text),
            Some(code) => write!(f, "{} ({code} {})", self.text, name(code)),
            None => f.write_str(&self.text),
        }
    }
}

/// What the client says of a call as a whole.
#[must_use]
pub fn of_call(error: &Error) -> SendError {
    match error {
        Error::Connect { .. } | Error::NoBroker(_) => {
            SendError::Retry(Cause::text(error.to_string()))
        }
        Error::Unsupported { .. } => SendError::Denied(Cause::text(error.to_string())),
        Error::Lost { .. } | Error::Malformed { .. } => {
            SendError::Unknown(Cause::text(error.to_string()))
        }
        Error::Code { what, code } => of_code(*code, Some(what)),
    }
}

/// What an answer's code means; 0 and 46 are no errors and not for here.
#[must_use]
pub fn of_code(code: i16, words: Option<&str>) -> SendError {
    let cause = Cause::code(code, words);
    match class(code) {
        Class::Retry => SendError::Retry(cause),
        Class::Unknown => SendError::Unknown(cause),
        Class::TooLarge => SendError::TooLarge(cause),
        Class::Rejected => SendError::Rejected(cause, Vec::new()),
        Class::Denied => SendError::Denied(cause),
        Class::Gone => SendError::Gone(cause),
        Class::OutOfOrder => SendError::OutOfOrder(cause),
        Class::Fenced => SendError::Fenced(cause),
    }
}

/// The replicas do not keep up: the partition goes alone on the slow road.
#[must_use]
pub fn is_sick(code: i16) -> bool {
    matches!(
        code,
        REQUEST_TIMED_OUT | NOT_ENOUGH_REPLICAS | NOT_ENOUGH_REPLICAS_AFTER_APPEND
    )
}

/// The topic or partition alone is refused: there is none, no right to it, no leader, too few
/// replicas.
#[must_use]
pub fn is_topics_own(code: i16) -> bool {
    matches!(
        code,
        3 | 5 | 6 | 17 | 56 | 103 | UNKNOWN_TOPIC_ID | TOPIC_AUTHORIZATION_FAILED
    ) || is_sick(code)
}

/// We may not read the topic, or the broker cannot tell.
#[must_use]
pub fn is_denied(code: i16) -> bool {
    class(code) == Class::Denied
}

/// 29: a right on the topic is missing.
pub const TOPIC_AUTHORIZATION_FAILED: i16 = 29;
/// 46: an earlier try was appended.
pub const DUPLICATE_SEQUENCE_NUMBER: i16 = 46;
/// 1: an offset outside the log.
pub const OFFSET_OUT_OF_RANGE: i16 = 1;
/// 78: a leader that was just elected does not know yet how far replicas are.
pub const OFFSET_NOT_AVAILABLE: i16 = 78;
/// 32: a timestamp outside the topic's bounds.
pub const INVALID_TIMESTAMP: i16 = 32;
const REQUEST_TIMED_OUT: i16 = 7;
const NOT_ENOUGH_REPLICAS: i16 = 19;
const NOT_ENOUGH_REPLICAS_AFTER_APPEND: i16 = 20;
const UNKNOWN_TOPIC_ID: i16 = 100;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Class {
    Retry,
    Unknown,
    TooLarge,
    Rejected,
    Denied,
    Gone,
    OutOfOrder,
    Fenced,
}

fn class(code: i16) -> Class {
    TABLE
        .iter()
        .find(|row| row.0 == code)
        .map_or(Class::Unknown, |row| row.2)
}

/// Kafka's name of a code.
#[must_use]
pub fn name(code: i16) -> &'static str {
    TABLE
        .iter()
        .find(|row| row.0 == code)
        .map_or("an error newer than this gateway", |row| row.1)
}

/// Codes of Kafka 4.3. Those that no produce answer carries (groups, elections, tokens …) are of
/// unknown fate.
const TABLE: &[(i16, &str, Class)] = &[
    (-1, "UNKNOWN_SERVER_ERROR", Class::Unknown),
    (1, "OFFSET_OUT_OF_RANGE", Class::Unknown),
    (2, "CORRUPT_MESSAGE", Class::Rejected),
    (3, "UNKNOWN_TOPIC_OR_PARTITION", Class::Gone),
    (4, "INVALID_FETCH_SIZE", Class::Unknown),
    (5, "LEADER_NOT_AVAILABLE", Class::Unknown),
    (6, "NOT_LEADER_OR_FOLLOWER", Class::Unknown),
    (7, "REQUEST_TIMED_OUT", Class::Unknown),
    (8, "BROKER_NOT_AVAILABLE", Class::Retry),
    (9, "REPLICA_NOT_AVAILABLE", Class::Unknown),
    (10, "MESSAGE_TOO_LARGE", Class::TooLarge),
    (11, "STALE_CONTROLLER_EPOCH", Class::Unknown),
    (12, "OFFSET_METADATA_TOO_LARGE", Class::Unknown),
    (13, "NETWORK_EXCEPTION", Class::Unknown),
    (14, "COORDINATOR_LOAD_IN_PROGRESS", Class::Retry),
    (15, "COORDINATOR_NOT_AVAILABLE", Class::Retry),
    (16, "NOT_COORDINATOR", Class::Retry),
    (17, "INVALID_TOPIC_EXCEPTION", Class::Denied),
    (18, "RECORD_LIST_TOO_LARGE", Class::TooLarge),
    (19, "NOT_ENOUGH_REPLICAS", Class::Retry),
    (20, "NOT_ENOUGH_REPLICAS_AFTER_APPEND", Class::Unknown),
    (21, "INVALID_REQUIRED_ACKS", Class::Denied),
    (22, "ILLEGAL_GENERATION", Class::Unknown),
    (23, "INCONSISTENT_GROUP_PROTOCOL", Class::Unknown),
    (24, "INVALID_GROUP_ID", Class::Unknown),
    (25, "UNKNOWN_MEMBER_ID", Class::Unknown),
    (26, "INVALID_SESSION_TIMEOUT", Class::Unknown),
    (27, "REBALANCE_IN_PROGRESS", Class::Unknown),
    (28, "INVALID_COMMIT_OFFSET_SIZE", Class::Unknown),
    (29, "TOPIC_AUTHORIZATION_FAILED", Class::Denied),
    (30, "GROUP_AUTHORIZATION_FAILED", Class::Denied),
    (31, "CLUSTER_AUTHORIZATION_FAILED", Class::Denied),
    (32, "INVALID_TIMESTAMP", Class::Rejected),
    (33, "UNSUPPORTED_SASL_MECHANISM", Class::Denied),
    (34, "ILLEGAL_SASL_STATE", Class::Denied),
    (35, "UNSUPPORTED_VERSION", Class::Denied),
    (36, "TOPIC_ALREADY_EXISTS", Class::Unknown),
    (37, "INVALID_PARTITIONS", Class::Unknown),
    (38, "INVALID_REPLICATION_FACTOR", Class::Unknown),
    (39, "INVALID_REPLICA_ASSIGNMENT", Class::Unknown),
    (40, "INVALID_CONFIG", Class::Unknown),
    (41, "NOT_CONTROLLER", Class::Retry),
    (42, "INVALID_REQUEST", Class::Denied),
    (43, "UNSUPPORTED_FOR_MESSAGE_FORMAT", Class::Denied),
    (44, "POLICY_VIOLATION", Class::Rejected),
    (45, "OUT_OF_ORDER_SEQUENCE_NUMBER", Class::OutOfOrder),
    (46, "DUPLICATE_SEQUENCE_NUMBER", Class::Unknown),
    (47, "INVALID_PRODUCER_EPOCH", Class::Fenced),
    (48, "INVALID_TXN_STATE", Class::Unknown),
    (49, "INVALID_PRODUCER_ID_MAPPING", Class::OutOfOrder),
    (50, "INVALID_TRANSACTION_TIMEOUT", Class::Unknown),
    (51, "CONCURRENT_TRANSACTIONS", Class::Retry),
    (52, "TRANSACTION_COORDINATOR_FENCED", Class::Unknown),
    (53, "TRANSACTIONAL_ID_AUTHORIZATION_FAILED", Class::Denied),
    (54, "SECURITY_DISABLED", Class::Denied),
    (55, "OPERATION_NOT_ATTEMPTED", Class::Unknown),
    (56, "KAFKA_STORAGE_ERROR", Class::Unknown),
    (57, "LOG_DIR_NOT_FOUND", Class::Unknown),
    (58, "SASL_AUTHENTICATION_FAILED", Class::Denied),
    (59, "UNKNOWN_PRODUCER_ID", Class::OutOfOrder),
    (60, "REASSIGNMENT_IN_PROGRESS", Class::Retry),
    (61, "DELEGATION_TOKEN_AUTH_DISABLED", Class::Unknown),
    (62, "DELEGATION_TOKEN_NOT_FOUND", Class::Unknown),
    (63, "DELEGATION_TOKEN_OWNER_MISMATCH", Class::Unknown),
    (64, "DELEGATION_TOKEN_REQUEST_NOT_ALLOWED", Class::Unknown),
    (65, "DELEGATION_TOKEN_AUTHORIZATION_FAILED", Class::Denied),
    (66, "DELEGATION_TOKEN_EXPIRED", Class::Denied),
    (67, "INVALID_PRINCIPAL_TYPE", Class::Unknown),
    (68, "NON_EMPTY_GROUP", Class::Unknown),
    (69, "GROUP_ID_NOT_FOUND", Class::Unknown),
    (70, "FETCH_SESSION_ID_NOT_FOUND", Class::Unknown),
    (71, "INVALID_FETCH_SESSION_EPOCH", Class::Unknown),
    (72, "LISTENER_NOT_FOUND", Class::Unknown),
    (73, "TOPIC_DELETION_DISABLED", Class::Unknown),
    (74, "FENCED_LEADER_EPOCH", Class::Unknown),
    (75, "UNKNOWN_LEADER_EPOCH", Class::Unknown),
    (76, "UNSUPPORTED_COMPRESSION_TYPE", Class::Denied),
    (77, "STALE_BROKER_EPOCH", Class::Unknown),
    (78, "OFFSET_NOT_AVAILABLE", Class::Unknown),
    (79, "MEMBER_ID_REQUIRED", Class::Unknown),
    (80, "PREFERRED_LEADER_NOT_AVAILABLE", Class::Unknown),
    (81, "GROUP_MAX_SIZE_REACHED", Class::Unknown),
    (82, "FENCED_INSTANCE_ID", Class::Unknown),
    (83, "ELIGIBLE_LEADERS_NOT_AVAILABLE", Class::Unknown),
    (84, "ELECTION_NOT_NEEDED", Class::Unknown),
    (85, "NO_REASSIGNMENT_IN_PROGRESS", Class::Unknown),
    (86, "GROUP_SUBSCRIBED_TO_TOPIC", Class::Unknown),
    (87, "INVALID_RECORD", Class::Rejected),
    (88, "UNSTABLE_OFFSET_COMMIT", Class::Unknown),
    (89, "THROTTLING_QUOTA_EXCEEDED", Class::Retry),
    (90, "PRODUCER_FENCED", Class::Fenced),
    (91, "RESOURCE_NOT_FOUND", Class::Unknown),
    (92, "DUPLICATE_RESOURCE", Class::Unknown),
    (93, "UNACCEPTABLE_CREDENTIAL", Class::Unknown),
    (94, "INCONSISTENT_VOTER_SET", Class::Unknown),
    (95, "INVALID_UPDATE_VERSION", Class::Unknown),
    (96, "FEATURE_UPDATE_FAILED", Class::Unknown),
    (97, "PRINCIPAL_DESERIALIZATION_FAILURE", Class::Unknown),
    (98, "SNAPSHOT_NOT_FOUND", Class::Unknown),
    (99, "POSITION_OUT_OF_RANGE", Class::Unknown),
    (100, "UNKNOWN_TOPIC_ID", Class::Gone),
    (101, "DUPLICATE_BROKER_REGISTRATION", Class::Unknown),
    (102, "BROKER_ID_NOT_REGISTERED", Class::Unknown),
    (103, "INCONSISTENT_TOPIC_ID", Class::Gone),
    (104, "INCONSISTENT_CLUSTER_ID", Class::Unknown),
    (105, "TRANSACTIONAL_ID_NOT_FOUND", Class::Unknown),
    (106, "FETCH_SESSION_TOPIC_ID_ERROR", Class::Unknown),
    (107, "INELIGIBLE_REPLICA", Class::Unknown),
    (108, "NEW_LEADER_ELECTED", Class::Unknown),
    (109, "OFFSET_MOVED_TO_TIERED_STORAGE", Class::Unknown),
    (110, "FENCED_MEMBER_EPOCH", Class::Unknown),
    (111, "UNRELEASED_INSTANCE_ID", Class::Unknown),
    (112, "UNSUPPORTED_ASSIGNOR", Class::Unknown),
    (113, "STALE_MEMBER_EPOCH", Class::Unknown),
    (114, "MISMATCHED_ENDPOINT_TYPE", Class::Unknown),
    (115, "UNSUPPORTED_ENDPOINT_TYPE", Class::Unknown),
    (116, "UNKNOWN_CONTROLLER_ID", Class::Unknown),
    (117, "UNKNOWN_SUBSCRIPTION_ID", Class::Unknown),
    (118, "TELEMETRY_TOO_LARGE", Class::Unknown),
    (119, "INVALID_REGISTRATION", Class::Unknown),
    (120, "TRANSACTION_ABORTABLE", Class::Unknown),
    (121, "INVALID_RECORD_STATE", Class::Unknown),
    (122, "SHARE_SESSION_NOT_FOUND", Class::Unknown),
    (123, "INVALID_SHARE_SESSION_EPOCH", Class::Unknown),
    (124, "FENCED_STATE_EPOCH", Class::Unknown),
    (125, "INVALID_VOTER_KEY", Class::Unknown),
    (126, "DUPLICATE_VOTER", Class::Unknown),
    (127, "VOTER_NOT_FOUND", Class::Unknown),
    (128, "INVALID_REGULAR_EXPRESSION", Class::Unknown),
    (129, "REBOOTSTRAP_REQUIRED", Class::Unknown),
];
