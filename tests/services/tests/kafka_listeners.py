"""Asks for the brokers over each listener and SASL mechanism; prints one line for each that answers."""
import sys

from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

plain, sasl, tls, sasl_tls, ca, user, password = sys.argv[1:]


def brokers(address, protocol, mechanism=None, secret=password, seconds=20):
    config = {"bootstrap.servers": address, "security.protocol": protocol, "ssl.ca.location": ca}
    if mechanism:
        config |= {"sasl.mechanism": mechanism, "sasl.username": user, "sasl.password": secret}
    return AdminClient(config, logger=None).list_topics(timeout=seconds).brokers


def check(address, protocol, mechanism=None):
    assert len(brokers(address, protocol, mechanism)) == 1
    print(protocol, mechanism) if mechanism else print(protocol)


check(plain, "PLAINTEXT")
check(tls, "SSL")
check(sasl, "SASL_PLAINTEXT", "PLAIN")
check(sasl, "SASL_PLAINTEXT", "SCRAM-SHA-256")
check(sasl, "SASL_PLAINTEXT", "SCRAM-SHA-512")
check(sasl_tls, "SASL_SSL", "SCRAM-SHA-512")
try:
    brokers(sasl, "SASL_PLAINTEXT", "SCRAM-SHA-512", secret="wrong", seconds=5)
except KafkaException:
    print("refused")
print("done")
