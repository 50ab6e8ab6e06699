"""The producer's end of the socket: one connection, pipelined, kept across restarts of the daemon."""

from shoestring.client.blocking import BlockingClient, LoopThread
from shoestring.client.client import Client
from shoestring.client.pipeline import SLICE_BYTES, SLICE_ENTRIES, Stored, slices

__all__ = ["SLICE_BYTES", "SLICE_ENTRIES", "BlockingClient", "Client", "LoopThread", "Stored", "slices"]
