"""Sends commands over a bus and prints each reply's body as one line.

command.py zeromq|nats|jetstream|kafka ADDRESS COMMAND...

Each COMMAND is "SERVER ACTION BODY" (BODY may hold blanks; it is sent as it is).
"""
import asyncio
import sys
import uuid

WAIT_SECONDS = 60


def show(body):
    print(body.decode().replace("\n", " "), flush=True)


def zeromq(address, commands):
    import zmq

    for _server, _action, body in commands:
        socket = zmq.Context.instance().socket(zmq.REQ)
        socket.setsockopt(zmq.RCVTIMEO, WAIT_SECONDS * 1000)
        socket.setsockopt(zmq.LINGER, 0)
        socket.connect(address)
        socket.send(body)
        show(socket.recv())


async def nats(address, commands):
    import nats as client

    connection = await client.connect(address)
    for server, action, body in commands:
        reply = await connection.request(f"ami.request.{server}.{action}", body, timeout=WAIT_SECONDS)
        show(reply.data)


async def jetstream(address, commands):
    import json

    import nats as client

    connection = await client.connect(address)
    stream = connection.jetstream()
    for server, action, body in commands:
        responses = await connection.subscribe(f"ami.response.{server}.{action}")
        ack = await stream.publish(f"ami.command.{server}.{action}", body)
        try:
            wanted = json.loads(body).get("id", "")
        except ValueError:
            wanted = ""
        # A command that could not be read is answered under its place in the stream.
        wanted = {wanted, f"{ack.stream}:{ack.seq}"}
        while True:
            message = await responses.next_msg(timeout=WAIT_SECONDS)
            if json.loads(message.data).get("correlationid") in wanted:
                break
        show(message.data)


def kafka(address, commands):
    from confluent_kafka import Consumer, Producer, TopicPartition
    from confluent_kafka.admin import AdminClient, NewTopic

    replies = f"replies-{uuid.uuid4()}"
    admin = AdminClient({"bootstrap.servers": address})
    admin.create_topics([NewTopic(replies, 1, 1)])[replies].result()
    consumer = Consumer({"bootstrap.servers": address, "group.id": replies, "enable.auto.commit": False})
    consumer.assign([TopicPartition(replies, 0, 0)])
    producer = Producer({"bootstrap.servers": address, "acks": "all"})
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


bus, address, *rest = sys.argv[1:]
commands = [(server, action, body.encode("utf-8", "surrogateescape"))
            for server, action, body in (text.split(" ", 2) for text in rest)]
function = {"zeromq": zeromq, "nats": nats, "jetstream": jetstream, "kafka": kafka}[bus]
result = function(address, commands)
if asyncio.iscoroutine(result):
    asyncio.run(result)
print("done", flush=True)
