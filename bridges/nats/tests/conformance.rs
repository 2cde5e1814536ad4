//! The contract's suite: over core NATS with the micro service, and over JetStream both ways.

macro_rules! cases {
    ($rig:ident: $($case:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let rig = crate::rig::NatsRig::$rig().await;
                amibus_contract::conformance::$case(&rig).await;
            }
        )+
    };
}

/// Left out: `server_restart_loses_nothing` and `unacknowledged_command_comes_again`, because core NATS keeps nothing.
mod over_core {
    cases!(core:
        order_within_a_key,
        headers_keys_and_ids_arrive,
        outlets_do_not_disturb_each_other,
        what_is_on_its_way_is_waited_for,
        oversized_first,
        oversized_middle,
        oversized_last,
        oversized_twice,
        server_away_at_start,
        close_delivers_what_it_accepted,
        command_reaches_us_and_reply_goes_back,
        late_acknowledge_is_kept,
        unreadable_command_is_set_aside,
        client_side_sees_and_asks,
    );
}

mod over_jetstream {
    cases!(jetstream:
        order_within_a_key,
        headers_keys_and_ids_arrive,
        outlets_do_not_disturb_each_other,
        what_is_on_its_way_is_waited_for,
        oversized_first,
        oversized_middle,
        oversized_last,
        oversized_twice,
        server_restart_loses_nothing,
        server_away_at_start,
        close_delivers_what_it_accepted,
        command_reaches_us_and_reply_goes_back,
        late_acknowledge_is_kept,
        unacknowledged_command_comes_again,
        unreadable_command_is_set_aside,
        client_side_sees_and_asks,
    );
}
