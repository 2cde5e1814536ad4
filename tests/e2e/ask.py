"""Commands over a bus, one after another, each with what it was answered: a function a bus, of its address, of
[(SERVER, ACTION, BODY)] and of what shows the body of a reply.
"""
import uuid

WAIT_SECONDS = 60


def zeromq(address, commands, show):
    import zmq

    socket = zmq.Context.instance().socket(zmq.REQ)
    socket.setsockopt(zmq.RCVTIMEO, WAIT_SECONDS * 1000)
    socket.setsockopt(zmq.LINGER, 0)
    socket.connect(address)
    for _server, _action, body in commands:
        socket.send(body)
        show(socket.recv())


async def nats(address, commands, show):
    import nats as client

    connection = await client.connect(address)
    for server, action, body in commands:
        reply = await connection.request(f"ami.request.{server}.{action}", body, timeout=WAIT_SECONDS)
        show(reply.data)


def kafka(address, commands, show):
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
