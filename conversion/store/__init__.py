"""Buckets of object stores, ``gs://`` and ``s3://``: reading from them, and writing into them.

Objects are whole or not there, but nothing in a bucket can be appended to, renamed or locked. So a file for a bucket is
made on this machine and put there in one write; of several objects that belong together, the one that says so is
written last and removed first.
"""

from conversion.store.fetch import fetched, fetched_text
from conversion.store.objects import Objects, StoreError
from conversion.store.put import put

__all__ = ["Objects", "StoreError", "fetched", "fetched_text", "put"]
