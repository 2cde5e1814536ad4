"""Publishes commands and stores the replies: flow.py nats|zeromq|jetstream|kafka ADDRESS PREFIX RATE PLAN FILE

Each line of PLAN is the JSON of one command; they are published in this order, RATE of them a second at most, each until the bus has
said that it keeps it, and none any more once there is a file beside FILE that ends in `.end` instead. Says "ready" before the first and
"sent" after the last, and stores replies until it is killed. Lines of FILE, their words separated by tabs, times in microseconds since
1970:

    P  DELIVERY  COMMAND  TIME                         the bus keeps the command, which was first tried at TIME;
                                                       DELIVERY is the number of its line in PLAN
    A  DELIVERY  ID  CRC  COMMAND  OUTCOME  CODE  TIME a reply to that delivery: as `outcomes.py` stores a response
    D  TIME                                            the connection over which replies come broke: NATS keeps none of them meanwhile
    C  TIME                                            it is there again

Over `nats` and `zeromq` they are requests, which nobody keeps: each is made again, its delivery the same, until it is answered, as any
requester would who is not.
"""
import asyncio
import functools
import json
import sys
import time
import uuid
import zlib
from pathlib import Path

TRY_SECONDS = 2
# A request that is not answered for so long is made again.
REPEAT_SECONDS = 3


class Store:
    def __init__(self, path):
        self.file = open(path, "a", buffering=1)
        self.end = Path(path).with_suffix(".end")

    def is_to_end(self):
        return self.end.exists()

    def keep(self, *words):
        self.file.write("\t".join(str(word) for word in words) + "\n")

    def published(self, delivery, command, begun):
        self.keep("P", delivery, command, begun)

    def replied(self, delivery, raw):
        body = json.loads(raw)
        data = body["data"]
        code = (data["error"] or {}).get("code", "-")
        self.keep("A", delivery, body["id"], zlib.crc32(raw), data["id"], data["outcome"], code, micros())


class Pace:
    def __init__(self, rate):
        self.between, self.next = 1 / rate, time.monotonic()

    def wait(self):
        """How long it is to the next turn."""
        now = time.monotonic()
        self.next = max(self.next, now - 1) + self.between
        return max(0, self.next - self.between - now)


class Unanswered:
    """Requests, in the order of when they were made last."""

    def __init__(self):
        self.requests = {}

    def made(self, delivery, request):
        self.requests.pop(delivery, None)
        self.requests[delivery] = (time.monotonic(), request)

    def answered(self, delivery):
        self.requests.pop(delivery, None)

    def due(self):
        """Those to be made again."""
        before = time.monotonic() - REPEAT_SECONDS
        for delivery, (made, request) in list(self.requests.items()):
            if made > before:
                break
            self.made(delivery, request)
            yield delivery, request


def micros():
    return int(time.time() * 1e6)


def say(word):
    print(word, flush=True)


async def jetstream(address, prefix, pace, plan, store, requests=False):
    import nats

    async def quiet(_):
        pass

    async def disconnected():
        store.keep("D", micros())

    async def connected():
        store.keep("C", micros())

    unanswered = Unanswered()

    async def heard(message):
        if not message.data:
            return  # The server's own word that nobody listens.
        delivery = message.subject.rpartition(".")[2]
        store.replied(delivery, message.data)
        unanswered.answered(delivery)

    async def ask(delivery, subject, body):
        unanswered.made(str(delivery), (subject, body))
        await connection.publish(subject, body, reply=f"{inbox}.{delivery}")

    async def ask_again():
        while True:
            await asyncio.sleep(0.2)
            for delivery, request in unanswered.due():
                await ask(delivery, *request)

    inbox = f"_INBOX.{uuid.uuid4().hex}"
    while True:
        try:
            connection = await nats.connect(
                address, error_cb=quiet, disconnected_cb=disconnected, reconnected_cb=connected, max_reconnect_attempts=-1,
                reconnect_time_wait=0.2, connect_timeout=TRY_SECONDS, ping_interval=1, max_outstanding_pings=2)
            break
        except Exception:
            await asyncio.sleep(0.2)
    await connection.subscribe(f"{inbox}.*", cb=heard)
    await connection.flush()
    context = connection.jetstream(timeout=TRY_SECONDS)
    repeating = asyncio.create_task(ask_again())
    say("ready")
    for delivery, (command, body) in enumerate(plan):
        await asyncio.sleep(pace.wait())
        if store.is_to_end():
            break
        subject, begun = f"{prefix}.command.{command['server']}.{command['action']}", micros()
        while True:
            try:
                if requests:
                    await ask(delivery, f"{prefix}.request.{command['server']}.{command['action']}", body)
                    break
                await context.publish(subject, body, headers={"reply-to": f"{inbox}.{delivery}"})
                break
            except Exception:
                # Whether it is kept is not known: once more, as any sender would.
                await asyncio.sleep(0.1)
        store.published(delivery, command["id"], begun)
    say("sent")
    await repeating


def kafka(address, prefix, pace, plan, store):
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    common = {"bootstrap.servers": address, "reconnect.backoff.ms": 50, "reconnect.backoff.max.ms": 500, "log_level": 0,
              "socket.timeout.ms": 5000}
    replies = f"replies-{uuid.uuid4()}"
    admin = AdminClient(common)
    admin.create_topics([NewTopic(replies, 1, 1)])[replies].result()
    consumer = Consumer({**common, "group.id": replies, "enable.auto.commit": False, "auto.offset.reset": "earliest",
                         "fetch.wait.max.ms": 50})
    consumer.assign([TopicPartition(replies, 0, 0)])
    producer = Producer({**common, "acks": "all", "linger.ms": 0, "message.timeout.ms": 0})

    def read():
        for message in consumer.consume(500, 0.01):
            if not message.error():
                delivery = dict(message.headers())["kafka_correlationId"].decode()
                store.replied(delivery, message.value())

    say("ready")
    for delivery, (command, body) in enumerate(plan):
        headers = {"kafka_replyTopic": replies.encode(), "kafka_correlationId": str(delivery).encode()}
        until = time.monotonic() + pace.wait()
        while time.monotonic() < until:
            read()
        if store.is_to_end():
            break

        def kept(error, _message, delivery=delivery, command=command, begun=micros()):
            assert error is None, error
            store.published(delivery, command["id"], begun)

        producer.produce(f"{prefix}.command", body, key=command["id"], headers=headers, on_delivery=kept)
        producer.poll(0)
    while producer.flush(0.1):
        read()
    say("sent")
    while True:
        read()


def zeromq(address, prefix, pace, plan, store):
    import zmq

    socket = zmq.Context.instance().socket(zmq.DEALER)
    for option, value in [(zmq.LINGER, 0), (zmq.RECONNECT_IVL, 50), (zmq.RECONNECT_IVL_MAX, 200), (zmq.IMMEDIATE, 1)]:
        socket.setsockopt(option, value)
    socket.connect(address)
    unanswered = Unanswered()

    def ask(delivery, body):
        unanswered.made(delivery, body)
        try:
            # What stands before the empty frame comes back before the answer.
            socket.send_multipart([delivery, b"", body], zmq.NOBLOCK)
        except zmq.Again:
            # Nobody is there. It is made again.
            pass

    def read(seconds):
        until = time.monotonic() + seconds
        while True:
            for delivery, body in unanswered.due():
                ask(delivery, body)
            if not socket.poll(max(0, min(0.2, until - time.monotonic())) * 1000):
                if time.monotonic() >= until:
                    return
                continue
            delivery, _, answer = socket.recv_multipart()
            store.replied(delivery.decode(), answer)
            unanswered.answered(delivery)

    say("ready")
    for number, (command, body) in enumerate(plan):
        read(pace.wait())
        if store.is_to_end():
            break
        begun = micros()
        ask(str(number).encode(), body)
        store.published(number, command["id"], begun)
    say("sent")
    while True:
        read(1)


bus, address, prefix, rate, plan, path = sys.argv[1:]
with open(plan, "rb") as file:
    plan = [(json.loads(line), line.rstrip(b"\n")) for line in file]
function = {"nats": functools.partial(jetstream, requests=True), "zeromq": zeromq, "jetstream": jetstream,
            "kafka": kafka}[bus]
result = function(address, prefix, Pace(float(rate)), plan, Store(path))
if asyncio.iscoroutine(result):
    asyncio.run(result)
