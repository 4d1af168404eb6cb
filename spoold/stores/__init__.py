"""Object stores that speak S3, by a client of our own: HTTP, Signature Version 4 and a little XML.

Why no library: bundles are put in parts, and only where nothing stands (If-None-Match when the
parts are joined); parts that a killed worker left are found and thrown away; keys that are no
paths are told one by one; and an attempt that has lost its job stops between two blocks. obstore
does none of these: it puts what is create-only in one piece, from memory, and cannot list a bucket
that has a key like `a//b`. botocore does, with all other services, 100 MB of them.
"""

from spoold.stores.store import ObjectInfo, Store, open_store
from spoold.stores.stored import StoredObject
from spoold.stores.upload import put_new

__all__ = ["ObjectInfo", "Store", "StoredObject", "open_store", "put_new"]
