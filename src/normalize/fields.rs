//! What a header is by its name: the table behind the types in `data`.
//!
//! The names are those of the events of Asterisk 16 and 22 (its XML documentation and what was seen on the
//! wire); a test fails for one that is in no list. A name that no list has is text. Three things never become
//! numbers: what dials (`Exten`, `ParkingSpace`), what names or identifies (`Agent`, `CommandId`, `SSRC`), and
//! what is printed with decimals (`ServicelevelPerf`, `RTT`), because `3.50` would not survive it.

use super::table::TABLE;
use crate::route::Role;

/// How a value is shown in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Form {
    /// A string, as it came.
    Text,
    /// A number where the digits are canonical, else a string.
    Number,
    /// A string, freed of the C escapes that Asterisk put in (`ast_escape_c` in `main/utils.c`).
    Escaped,
    /// `name=value`, together an object; the values C-escaped on the wire.
    Variables,
    /// `name=value`, together an object; the values as they came.
    RawVariables,
    /// An array, split at commas.
    Words,
    /// A string, URL-encoded on the wire (`ast_uri_encode` in `main/utils.c`).
    Url,
}

impl Form {
    /// Whether what stands in JSON begins with a quote, whatever the value is.
    #[inline(always)]
    pub(crate) fn is_quoted(self) -> bool {
        matches!(self, Self::Text | Self::Escaped | Self::Url)
    }
}

/// What the table knows about a header.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rule {
    /// A number of its own for each name of the table, 0 for all others.
    pub(crate) id: u16,
    pub(crate) form: Form,
    pub(crate) role: Role,
}

/// Of a name that no list has.
pub(crate) const UNKNOWN: Rule = Rule { id: 0, form: Form::Text, role: Role::None };

/// What stands before the name of a channel's field, where an event tells of several channels.
const CHANNEL_PREFIXES: &str = " Dest LocalOne LocalTwo Source Target OrigTransferer SecondTransferer
    TransferTarget Transferee Transferer Parkee Parker Retriever Spyer Spyee";
/// The fields of a channel (`ast_manager_build_channel_state_string_prefix` in `main/manager_channels.c`).
const CHANNEL_FIELDS: [(&str, Form, Role, Role); 15] = [
    ("Channel", Form::Text, Role::None, Role::None),
    ("ChannelState", Form::Number, Role::None, Role::None),
    ("ChannelStateDesc", Form::Text, Role::None, Role::None),
    ("CallerIDNum", Form::Text, Role::None, Role::None),
    ("CallerIDName", Form::Escaped, Role::None, Role::None),
    ("ConnectedLineNum", Form::Text, Role::None, Role::None),
    ("ConnectedLineName", Form::Escaped, Role::None, Role::None),
    ("Language", Form::Text, Role::None, Role::None),
    ("AccountCode", Form::Text, Role::None, Role::None),
    ("Context", Form::Text, Role::None, Role::None),
    ("Exten", Form::Text, Role::None, Role::None),
    ("Priority", Form::Number, Role::None, Role::None),
    ("Uniqueid", Form::Text, Role::Uniqueid, Role::OtherUniqueid),
    ("Linkedid", Form::Text, Role::Linkedid, Role::OtherLinkedid),
    ("ChanVariable", Form::Variables, Role::None, Role::None),
];

const BRIDGE_PREFIXES: &str = " Dest From To Orig Second";
/// The fields of a bridge (`ast_manager_build_bridge_state_string_prefix` in `main/manager_bridges.c`).
const BRIDGE_FIELDS: [(&str, Form); 8] = [
    ("BridgeUniqueid", Form::Text),
    ("BridgeType", Form::Text),
    ("BridgeTechnology", Form::Text),
    ("BridgeCreator", Form::Text),
    ("BridgeName", Form::Text),
    ("BridgeNumChannels", Form::Number),
    ("BridgeVideoSourceMode", Form::Text),
    ("BridgeVideoSource", Form::Text),
];

/// Counts, durations, sizes, codes, flags that are 0 or 1, and moments in whole seconds.
const NUMBERS: &str = "
    Abandoned ActiveChannels AnsweredTime AppLine AsycOperations AsyncOperations Attempt Available
    BillableSeconds BridgePriority CallStarted Callers Calls CallsTaken Cause Completed CompletedFAXes
    ContactsRegistered CoreCurrentCalls CoreMaxCalls CoreMaxFilehandles Cos CosAudio CosVideo Cost Count
    CurrentSessions DataRate DefaultExpiration DeviceStateBusyAt DtlsRekey Duration DurationMs
    Expiration ExpirationTime ExternalSignalingPort FailedFAXes FatalRetryInterval FaxDetectTimeout
    ForbiddenRetryInterval HoldTime Holdtime InCall Items LastCall LastPause LastReload Length Line
    ListContexts ListExtensions ListItems ListPriorities LoggedIn LoggedInTime LoginTime Logintime
    LongestHoldTime MCallerIDNameValid MCallerIDNumPlan MCallerIDNumValid MCallerIDSubaddrOdd
    MCallerIDSubaddrType MCallerIDton MConnectedIDNameValid MConnectedIDNumPlan MConnectedIDNumValid
    MConnectedIDSubaddrOdd MConnectedIDSubaddrType MConnectedIDton Marked Max MaxAudioStreams
    MaxContacts MaxMessageCount MaxMessageLength MaxRandomInitialDelay MaxRetries MaxVideoStreams
    MaximumExpiration MinimumExpiration New NewMessageCount NewMessages NextReg NonceLifetime
    NotificationBatchInterval NumberOf Old OldMessageCount OldMessages OriginalPosition PageNumber
    PagesReceived PagesTransferred PagesTransmitted ParkingDuration ParkingTimeout Parties Paused
    Penalty Plan Port Position QualifyFrequency Reason ReceiveAttempts RegExpire ReportCount
    ReportXCumulativeLost ReportXFractionLost ReportXHighestSequence ReportXIAJitter ReportXLSR
    ReportXSequenceNumberCycles ReservedSessions ResultCode RetryInterval RingTime Ringinuse
    RoundtripUsec RtpKeepalive RtpPortEnd RtpPortStart RtpTimeout RtpTimeoutHold SayDurationMinimum
    Scale Seconds SentOctets SentPackets SentRTP SequenceNumber ServiceLevel SpecialCode Status
    SubMinExpiry T38UdptlMaxdatagram TalkTime TcpKeepaliveIdleTime TcpKeepaliveIntervalTime
    TcpKeepaliveProbeCount Time TimeToHangup Timeout TimersMinSe TimersSessExpires Tos TosAudio TosVideo
    Total TotalBadLines TotalContacts TransferRate TransmitAttempts TypeOf Uptime UsingPassword ViaPort
    Wait Waiting WebsocketWriteTimeout Weight Wrapuptime";

/// Everything else.
const TEXTS: &str = "
    100rel ACLName AMAFlags AOR AcceptMultipleSdpAnswers AccountID Accountcode Acl Action ActionID
    Activity Address Admin Agent AggregateMwi Alarm Allow AllowOverlap AllowReload AllowSubscribe
    AllowTransfer AllowUnauthenticatedOptions AllowWildcardCerts Allowoverlap AnswerTime Aor Aors
    AppData AppFile AppFunction Application ApplicationData AsymmetricRtpCodec AttachMessage
    AttachmentFormat AttemptedTransport Auth AuthMethod AuthRejectionPermanent AuthType
    AuthenticateQualify Auths BillingID Bind BindRtpToMediaAddress BridgeID BridgeId
    BridgePreviousVideoSource BridgeSuspended Bundle CID-CallingPres CaListFile CaListPath CallGroup
    CallID CallId CallOperator Callback CallerID CallerIDani CallerIDdnid CallerIDname CallerIDnum
    CallerIDrdnis Callerid CalleridPrivacy CalleridTag Callgroup Callid CanMarkUrgent CanReview
    Cause-txt CertFile Challenge ChannelType Charge Chargeable ChargingAssociation ChargingType Cipher
    Class ClientUri CodecPrefsIncomingAnswer CodecPrefsIncomingOffer CodecPrefsOutgoingAnswer
    CodecPrefsOutgoingOffer Command CommandID CommandId Conference ConnectedLineMethod Contact
    ContactAcl ContactHeaderParams ContactStatus ContactUser Contacts Control Counter Creation Currency
    DAHDIChannel DAHDIGroup DAHDISpan DNID Data DeleteMessage DestApp DestTransfererChannel DestType
    DestUniqueId Destination DestinationChannel DestinationContext Device DeviceState DialStatus
    DialString Dialled Dialout Digit DirectMedia DirectMediaGlareMitigation DirectMediaMethod Direction
    DisableDirectMediaOnNat Disallow Disposition Domain DtlsAutoGenerateCert DtlsCaFile DtlsCaPath
    DtlsCertFile DtlsCipher DtlsFingerprint DtlsPrivateKey DtlsSetup DtlsVerify DtmfMode
    EffectiveConnectedLineName EffectiveConnectedLineNum Email EndMarked EndMarkedAny EndTime Endpoint
    EndpointName Env ErrorCorrectionMode Event EventList EventName EventTV EventTime EventVersion
    ExitContext ExpectedAddress ExpectedResponse Extension ExtensionStates ExternalMediaAddress
    ExternalSignalingAddress Extra Family FaxDetect Feature File FileName Files FollowEarlyMediaFork
    FollowRedirectMethods ForceAvp ForceRport Forward From FromDomain FromString FromUser FullState
    Fullname Func G726NonStandard GeolocIncomingCallProfile GeolocOutgoingCallProfile Granularity
    Handler Hint ID IceSupport Id IdentifyBy Ignore183WithoutSdp ImageResolution InbandProgress
    IncomingCallOfferPref IncomingMwiMailbox Interface IsExternal Key LastApplication LastData LinkedID
    ListItem LocalAddress LocalNet LocalOptimization LocalStationID Location Locked MCallerIDName
    MCallerIDNameCharSet MCallerIDNamePres MCallerIDNum MCallerIDNumPres MCallerIDPres MCallerIDSubaddr
    MConnectedIDName MConnectedIDNameCharSet MConnectedIDNamePres MConnectedIDNum MConnectedIDNumPres
    MConnectedIDPres MConnectedIDSubaddr MailCommand Mailbox Mailboxes MarkedUser Match MatchHeader
    MatchRequestUri Md5Cred MediaAddress MediaEncryption MediaEncryptionOptimistic
    MediaUseReceivedTransport Meetme MemberName Membership Message MessageContext Method Mode Module
    MohPassthrough MohSuggest Multiplier MusicClass Muted Mutex MwiFromUser
    MwiSubscribeReplacesUnsolicited Name NamedCallGroup NamedPickupGroup Nativeformats NewPassword
    NewState NotifyEarlyInuseRinging Number OauthClientid OauthSecret ObjectName ObjectType
    OldAccountCode OldState OneTouchRecording Operation OutboundAuth OutboundAuths OutboundProxy
    OutgoingCallOfferPref Output OverlapContext PT Pager ParkerDialString ParkingSpace Parkinglot
    Password PasswordDigest Path PausedReason Peer PeerAccount PeerStatus PickupGroup Pickupgroup Ping
    PreferredCodecOnly Presentity PriorCallID PrivKeyFile Privilege Protocol PruneOnBoot Qualify2xxOnly
    QualifyTimeout Queue RTT RateType Readformat Readtrans Realm ReceivedChallenge ReceivedHash
    RecordOffFeature RecordOnFeature RedirectMethod ReferBlindProgress RefreshToken RegServer Registrar
    RemoteAddress RemoteStationID RemoveExisting RemoveUnavailable ReportXDLSR ReportXSourceSSRC
    RequestParams RequestType RequireClientCert Resolution ResourceDisplayName Response Restart Result
    RewriteContact Role RpidImmediate RtcpMux RtpEngine RtpIpv6 RtpSymmetric SSRC SayCID SayEnvelope
    SdpOwner SdpSession SecurityNegotiation SendAoc SendConnectedLine SendDiversion SendHistoryInfo
    SendPai SendRpid SentNTP ServerEmail ServerUri Service ServiceLevelPerf ServiceLevelPerf2
    ServicelevelPerf ServicelevelPerf2 SessionID SessionNumber SessionTV SessionType SetVar Severity
    Shutdown Source Span SrtpTag32 SrvLookups StartSpace StartTime State StateInterface StatusText
    StepFunction StirShaken StirShakenProfile StopSpace Strategy SubscribeContext SubscriptionType
    Subtype Success SupportOutbound SupportPath SupportedAlgorithmsUac SupportedAlgorithmsUas
    SuppressMohOnSendonly SuppressQ850ReasonHeaders SwapUniqueid SymmetricTransport SystemName
    T38BindUdptlToMediaAddress T38Udptl T38UdptlEc T38UdptlIpv6 T38UdptlNat Talking TalkingStatus
    TalkingToChan TcpKeepaliveEnable TechCause Technology Tenantid TimeZone Timers Timestamp To ToneZone
    TotalType Transport TrustConnectedLine TrustIdInbound TrustIdOutbound Type URI UniqueID Unit Units
    Uri UseAvpf UsePtime User UserAgent UserEqPhone UserEvent UserField UserNumber Username VMContext
    Val Value Variable VerifyClient VerifyServer ViaAddr ViaAddress VoiceMailbox VoicemailExtension
    VolumeGain WaitMarked Webrtc Writeformat Writetrans";

/// After `Report` and a number, in `RTCPReceived` and `RTCPSent` (`main/rtp_engine.c`).
const REPORT_NUMBERS: [&[u8]; 6] =
    [b"FractionLost", b"CumulativeLost", b"HighestSequence", b"SequenceNumberCycles", b"IAJitter", b"LSR"];

/// The rule for a header of that name, in exactly that case.
#[inline]
pub(crate) fn rule(name: &[u8]) -> Rule {
    TABLE.get(name).map_or_else(|| unlisted(name), |name| name.rule)
}

/// The rule for a header of a name that no list has.
pub(crate) fn unlisted(name: &[u8]) -> Rule {
    if is_report_number(name) { REPORT } else { UNKNOWN }
}

/// Every name of every list, with its form and its role.
pub(crate) fn listed() -> impl Iterator<Item = (String, Form, Role)> {
    let channels = words(CHANNEL_PREFIXES).flat_map(|prefix| {
        CHANNEL_FIELDS.into_iter().map(move |(field, form, own, other)| {
            (format!("{prefix}{field}"), form, if prefix.is_empty() { own } else { other })
        })
    });
    let bridges = words(BRIDGE_PREFIXES).flat_map(|prefix| {
        BRIDGE_FIELDS.into_iter().map(move |(field, form)| (format!("{prefix}{field}"), form, Role::None))
    });
    let numbers = NUMBERS.split_whitespace().map(|name| (name.to_owned(), Form::Number, Role::None));
    let texts = TEXTS.split_whitespace().map(|name| {
        let role = match name {
            "LinkedID" => Role::Linkedid,
            "UniqueID" => Role::Uniqueid,
            "DestUniqueId" => Role::OtherUniqueid,
            _ => Role::None,
        };
        let form = if name == "Privilege" { Form::Words } else { Form::Text };
        (name.to_owned(), form, role)
    });
    channels.chain(bridges).chain(numbers).chain(texts)
}

/// The empty word and those of `list`.
fn words(list: &str) -> impl Iterator<Item = &str> {
    std::iter::once("").chain(list.split_whitespace())
}

/// Whether any list has that name.
pub(crate) fn is_known(name: &[u8]) -> bool {
    rule(name).id != 0 || is_report_number(name)
}

const REPORT: Rule = Rule { id: 0, form: Form::Number, role: Role::None };

fn is_report_number(name: &[u8]) -> bool {
    let Some(rest) = name.strip_prefix(b"Report") else { return false };
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    digits > 0 && rest.get(digits..).is_some_and(|field| REPORT_NUMBERS.contains(&field))
}

/// The events whose headers do not mean what their names mean elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventRules {
    /// As the table says.
    Common,
    /// Names of persons are not escaped.
    RawNames,
    /// `OriginateResponse`: as [`Self::RawNames`], and `ChanVariable(Channel): name=value`.
    OriginateResponse,
    /// `PresenceStateChange`.
    PresenceStateChange,
    /// `VarSet`.
    VarSet,
    /// `Status`.
    Status,
    /// `AsyncAGIStart` and `AsyncAGIExec`.
    AsyncAgi,
}

impl EventRules {
    pub(crate) const ALL: [Self; 7] = [
        Self::Common,
        Self::RawNames,
        Self::OriginateResponse,
        Self::PresenceStateChange,
        Self::VarSet,
        Self::Status,
        Self::AsyncAgi,
    ];

    /// One bit, another for each.
    #[inline(always)]
    pub(crate) fn bit(self) -> u8 {
        1 << self as u8
    }

    pub(crate) fn of(event: &[u8]) -> Self {
        match event {
            b"OriginateResponse" => Self::OriginateResponse,
            b"QueueEntry" | b"MeetmeList" => Self::RawNames,
            b"PresenceStateChange" => Self::PresenceStateChange,
            b"VarSet" => Self::VarSet,
            b"Status" => Self::Status,
            b"AsyncAGIStart" | b"AsyncAGIExec" => Self::AsyncAgi,
            _ => Self::Common,
        }
    }

    /// The form of a header in this event, where the table says `form`.
    #[inline(always)]
    pub(crate) fn form(self, name: &[u8], form: Form) -> Form {
        if self == Self::Common { form } else { self.own_form(name, form) }
    }

    fn own_form(self, name: &[u8], form: Form) -> Form {
        match (self, name) {
            (Self::RawNames | Self::OriginateResponse, _) if form == Form::Escaped => Form::Text,
            (Self::OriginateResponse, name) if name.starts_with(b"ChanVariable(") => Form::RawVariables,
            (Self::PresenceStateChange, b"Subtype" | b"Message") => Form::Escaped,
            (Self::VarSet, b"Value") => Form::Escaped,
            (Self::Status, b"Variable") => Form::RawVariables,
            (Self::AsyncAgi, b"Env" | b"Result") => Form::Url,
            _ => form,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_decide() {
        for (name, form) in [
            ("ChannelState", Form::Number),
            ("DestPriority", Form::Number),
            ("Exten", Form::Text),
            ("ParkingSpace", Form::Text),
            ("LocalTwoConnectedLineName", Form::Escaped),
            ("SpyeeChanVariable", Form::Variables),
            ("Report12CumulativeLost", Form::Number),
            ("ReportCumulativeLost", Form::Text),
            ("Report0DLSR", Form::Text),
            ("channelstate", Form::Text),
            ("", Form::Text),
        ] {
            assert_eq!(rule(name.as_bytes()).form, form, "{name}");
        }
    }
}
