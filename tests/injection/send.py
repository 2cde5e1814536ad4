"""Sends commands over a bus, one after another, and prints what each was answered as one line of JSON.

send.py zeromq|nats|jetstream|kafka ADDRESS FILE

FILE holds a list of {"server", "action", "body"}, the body in base64: it is sent as it is, whatever it is.
"""
import asyncio
import base64
import json
import sys
import uuid

WAIT_SECONDS = 60


def show(body):
    print(json.dumps({"reply": body.decode("utf-8", "backslashreplace")}), flush=True)


def zeromq(address, commands):
    import zmq

    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.RCVTIMEO, WAIT_SECONDS * 1000)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(address)
    for _server, _action, body in commands:
        socket.send(body)
        show(socket.recv())


async def nats(address, commands):
    import nats as client

    connection = await client.connect(address)
    for server, action, body in commands:
        reply = await connection.request(f"ami.request.{server}.{action}", body, timeout=WAIT_SECONDS)
        show(reply.data)


async def jetstream(address, commands):
    import nats as client

    connection = await client.connect(address)
    stream = connection.jetstream()
    inbox = connection.new_inbox()
    replies = await connection.subscribe(inbox + ".*")
    for number, (server, action, body) in enumerate(commands):
        subject = f"{inbox}.{number}"
        await stream.publish(f"ami.command.{server}.{action}", body, headers={"reply-to": subject})
        message = await replies.next_msg(timeout=WAIT_SECONDS)
        assert message.subject == subject, (message.subject, subject)
        show(message.data)


def kafka(address, commands):
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    replies = f"replies-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(replies, 1, 1)])[replies].result()
    consumer = Consumer({"bootstrap.servers": address, "group.id": replies, "enable.auto.commit": False,
                         "fetch.wait.max.ms": 5})
    consumer.assign([TopicPartition(replies, 0, 0)])
    producer = Producer({"bootstrap.servers": address, "acks": "all", "linger.ms": 0})
    for _server, _action, body in commands:
        correlation = uuid.uuid4().bytes
        headers = {"kafka_replyTopic": replies.encode(), "kafka_correlationId": correlation,
                   "kafka_replyPartition": (0).to_bytes(4, "big")}
        producer.produce("ami.command", body, headers=headers)
        producer.flush(WAIT_SECONDS)
        message = consumer.poll(WAIT_SECONDS)
        assert message is not None and not message.error(), message
        assert dict(message.headers())["kafka_correlationId"] == correlation
        show(message.value())


bus, address, file = sys.argv[1:]
with open(file) as opened:
    commands = [(one["server"], one["action"], base64.b64decode(one["body"])) for one in json.load(opened)]
function = {"zeromq": zeromq, "nats": nats, "jetstream": jetstream, "kafka": kafka}[bus]
result = function(address, commands)
if asyncio.iscoroutine(result):
    asyncio.run(result)
print("done", flush=True)
