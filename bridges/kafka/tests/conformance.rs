//! The suite that every bridge passes, against real Kafka.

use amibus_contract::conformance as suite;

use crate::rig::KafkaRig;

macro_rules! cases {
    ($rig:ident: $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                suite::$case(&KafkaRig::$rig()).await;
            }
        )+
    };
}

cases!(shared:
    order_within_a_key,
    headers_keys_and_ids_arrive,
    outlets_do_not_disturb_each_other,
    what_is_on_its_way_is_waited_for,
    oversized_first,
    oversized_middle,
    oversized_last,
    oversized_twice,
    close_delivers_what_it_accepted,
    command_reaches_us_and_reply_goes_back,
    late_acknowledge_is_kept,
    unacknowledged_command_comes_again,
    unreadable_command_is_set_aside,
    client_side_sees_and_asks,
);

cases!(own: server_restart_loses_nothing, server_away_at_start);
