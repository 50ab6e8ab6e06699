"""The public API: declare handlers and sources, enqueue, fan out, embed."""

from shoestring.app.application import Shoestring
from shoestring.app.handler import BatchHandler, Call, Handler, Receipt
from shoestring.app.job import Job
from shoestring.app.source import Pages, Source

__all__ = ["BatchHandler", "Call", "Handler", "Job", "Pages", "Receipt", "Shoestring", "Source"]
