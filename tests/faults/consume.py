"""Stores what comes over a bus, one short line a message: consume.py nats|kafka ADDRESS PREFIX STREAM FILE

Says "ready" once it reads. Uses the bus's own client for Python and nothing of amibus. Every line begins with

    KIND  PLACE  SEQUENCE  ID  CRC  KEY

separated by tabs: where the bus keeps it (stream sequence, or topic/partition:offset), the message's `sequence`, `id`, CRC-32 of
the body and key. Then, by KIND (`-` for what is not there):

    E  TAG  N  SEQUENCENUMBER  LAG         an event of the numbered source; LAG in microseconds since its Timestamp
    G  REASON  FIRST  LAST  FROM  UNTIL  BUS    a gap; times in microseconds since 1970
    L  STATE  BOOT                         any other message about the link
    O  TYPE                                anything else
"""
import asyncio
import calendar
import json
import sys
import time
import zlib

FLUSH_SECONDS = 0.1
BATCH = 500


class Store:
    def __init__(self, path, words):
        self.words = words
        self.file = open(path, "a", buffering=1 << 20)
        self.flushed = 0.0

    def keep(self, place, raw):
        words = self.words(place, raw)
        if words:
            self.file.write("\t".join(str(word) for word in words) + "\n")
        self.flush_in_time()

    def flush_in_time(self):
        if time.monotonic() - self.flushed > FLUSH_SECONDS:
            self.flush()

    def flush(self):
        self.file.flush()
        self.flushed = time.monotonic()


def words(place, raw):
    body = json.loads(raw)
    data = body["data"]
    head = [place, int(body["sequence"]), body["id"], zlib.crc32(raw), body["partitionkey"]]
    kind = body["type"]
    if data.get("UserEvent") == "Flood" and kind == "ami.event.UserEvent":
        stamp = data.get("Timestamp")
        lag = "-" if stamp is None else int((time.time() - float(stamp)) * 1e6)
        return ["E", *head, data["Tag"], int(data["Seq"]), data.get("SequenceNumber", "-"), lag]
    if kind == "ami.link.gap":
        times = [micros(data["from"]), micros(data["until"])]
        bus = data["bus"] or "-"
        return ["G", *head, data["reason"], dash(data["first"]), dash(data["last"]), *times, bus]
    if kind.startswith("ami.link."):
        return ["L", *head, data["state"], (data.get("boot") or "-").replace("\t", " ")]
    return ["O", *head, kind]


def dash(value):
    return "-" if value is None else value


def micros(text):
    if text is None:
        return "-"
    whole, _, fraction = text.rstrip("Z").partition(".")
    seconds = calendar.timegm(time.strptime(whole, "%Y-%m-%dT%H:%M:%S"))
    return seconds * 1_000_000 + int((fraction + "000000")[:6])


def ready():
    print("ready", flush=True)


class Nats:
    """Reads a stream by the stream's own sequence, so that what is delivered twice is not taken for stored twice.

    It asks for each batch, so that it gets what it can take, and begins again with a new connection where anything is odd.
    """

    def __init__(self, prefix, stream, store):
        self.subject, self.stream, self.store = f"{prefix}.>", stream, store
        self.last = 0
        self.told = False

    async def run(self, address):
        while True:
            try:
                await self.session(address)
            except Exception as error:
                # The server or the stream is away: look again.
                print(f"{time.time():.3f} at {self.last}: {error!r}", file=sys.stderr, flush=True)
            self.store.flush()
            await asyncio.sleep(0.2)

    async def session(self, address):
        import nats

        async def quiet(_):
            pass

        connection = await asyncio.wait_for(
            nats.connect(address, allow_reconnect=False, error_cb=quiet, connect_timeout=2), 5)
        try:
            await self.read(connection.jetstream(timeout=5))
        finally:
            await asyncio.wait_for(connection.close(), 2)

    async def read(self, context):
        from nats.errors import TimeoutError
        from nats.js import api

        await context.stream_info(self.stream)
        if not self.told:
            self.told = True
            ready()
        config = api.ConsumerConfig(
            deliver_policy=api.DeliverPolicy.BY_START_SEQUENCE, opt_start_seq=self.last + 1,
            ack_policy=api.AckPolicy.NONE)
        batches = await context.pull_subscribe(self.subject, stream=self.stream, config=config)
        while True:
            try:
                messages = await batches.fetch(BATCH, timeout=1)
            except TimeoutError:
                info = await context.stream_info(self.stream)
                if info.state.last_seq > self.last:
                    raise
                messages = []
            for message in messages:
                place = message.metadata.sequence.stream
                if place != self.last + 1:
                    raise ValueError(f"{place} came after {self.last}: asking again")
                self.last = place
                self.store.keep(place, message.data)
            self.store.flush_in_time()


def kafka(address, prefix, store, kinds):
    from confluent_kafka import Consumer, TopicPartition

    topics = [f"{prefix}.{kind}" for kind in kinds]
    consumer = Consumer({
        "bootstrap.servers": address, "group.id": "faults", "enable.auto.commit": False,
        "auto.offset.reset": "earliest", "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500,
        "socket.timeout.ms": 5000, "fetch.wait.max.ms": 50, "log_level": 0,
    })
    while True:
        try:
            known = consumer.list_topics(timeout=5).topics
        except Exception:
            continue
        if all(topic in known and known[topic].partitions for topic in topics):
            break
        time.sleep(0.1)
    consumer.assign([TopicPartition(t, p, 0) for t in topics for p in known[t].partitions])
    ready()
    while True:
        for message in consumer.consume(500, 0.1):
            if message.error():
                continue
            topic = message.topic().rpartition(".")[2]
            store.keep(f"{topic}/{message.partition()}:{message.offset()}", message.value())
        store.flush()


def main(words, kinds):
    bus, address, prefix, stream, path = sys.argv[1:]
    store = Store(path, words)
    if bus == "nats":
        asyncio.run(Nats(prefix, stream, store).run(address))
    else:
        kafka(address, prefix, store, kinds)


if __name__ == "__main__":
    main(words, ["event", "link"])
