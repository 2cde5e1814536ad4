//! The configuration of one Asterisk: the files of `asterisk/etc` with its ports and options filled in.

use std::fs;
use std::path::Path;

use crate::asterisk::{AsteriskOptions, Version, modules};
use crate::cache;
use crate::process::Process;

pub(crate) const AMI: u16 = 0;
pub(crate) const AMIS: u16 = 1;
pub(crate) const HTTP: u16 = 2;
pub(crate) const HTTPS: u16 = 3;
pub(crate) const SIP: u16 = 4;
pub(crate) const FASTAGI: u16 = 5;
/// RTP takes an even port and the one after it for each stream.
const RTP_FIRST: u16 = 8;
const RTP_LAST: u16 = 31;

/// Asterisk complains about each file that it does not find; these may be empty.
const EMPTY: &str = "acl adsi aeap alarmreceiver amd app_skel ari calendar ccss chan_websocket cli cli_aliases \
    cli_permissions codecs dnsmgr dsp enum extconfig followme func_odbc geolocation hep meetme minivm phoneprov \
    pjproject pjsip_notify pjsip_wizard queuerules res_curl res_fax res_http_media_cache say sla smdi sorcery stasis \
    stir_shaken udptl websocket_client xmpp";

const DIRECTORIES: [&str; 10] = [
    "run",
    "lib/keys",
    "cache",
    "log.d",
    "spool/tmp",
    "spool/outgoing",
    "spool/monitor",
    "spool/voicemail",
    "spool/recording",
    "spool/system",
];

/// Writes it into the directory of `process`.
pub(crate) fn write(process: &Process, version: Version, options: &AsteriskOptions, root: &Path) {
    let base = process.directory();
    for name in DIRECTORIES {
        fs::create_dir_all(base.join(name)).expect("a directory of asterisk");
    }
    let yes_no = |yes: bool| if yes { "yes" } else { "no" }.to_owned();
    let port = |index: u16| process.port(index).to_string();
    let values = [
        ("@MODULES@", modules(root).to_owned()),
        ("@AMI@", port(AMI)),
        ("@AMIS@", port(AMIS)),
        ("@HTTP@", port(HTTP)),
        ("@HTTPS@", port(HTTPS)),
        ("@SIP@", port(SIP)),
        ("@FASTAGI@", port(FASTAGI)),
        ("@RTPLO@", port(RTP_FIRST)),
        ("@RTPHI@", port(RTP_LAST)),
        ("@TIMESTAMP@", yes_no(options.timestamp)),
        ("@DEBUGSEQ@", yes_no(options.debug_seq)),
        ("systemname = @SYSTEMNAME@", system_name(&options.system_name)),
    ];
    let etc = base.join("etc");
    copy(&cache::own("asterisk/etc"), &etc, &values);
    if version == Version::V16 {
        fs::remove_file(etc.join("manager.d/filters-22.conf")).expect("the filters of 22");
    }
    for name in EMPTY.split_whitespace() {
        fs::write(etc.join(format!("{name}.conf")), "").expect("an empty configuration file");
    }
    fs::write(etc.join("manager.d/test.conf"), format!("; of the test\n{}\n", options.manager))
        .expect("users");
    fs::write(etc.join("extensions_test.conf"), format!("; of the test\n{}\n", options.dialplan))
        .expect("a dialplan");
}

fn system_name(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!("systemname = {name}") }
}

/// Copies a folder; the permissions go along.
fn copy(from: &Path, to: &Path, values: &[(&str, String)]) {
    fs::create_dir_all(to).expect("a directory of the configuration");
    for entry in fs::read_dir(from).expect("the configuration of asterisk") {
        let source = entry.expect("an entry of the configuration").path();
        let target = to.join(source.file_name().expect("a file's name"));
        if source.is_dir() {
            copy(&source, &target, values);
            continue;
        }
        fs::copy(&source, &target).expect("a copy of the configuration");
        let mut text = fs::read_to_string(&target).expect("a file of the configuration");
        for (token, value) in values {
            text = text.replace(token, value);
        }
        fs::write(&target, text).expect("a file of the configuration");
    }
}
