//! The HTTP faces: Mesos v1 messages in JSON and protobuf, RecordIO, Muster's own v1. No IO.
