"""Where a sweep is kept: a folder, or a prefix of a bucket (S3, Google Cloud Storage), with the same promises."""

from gemma_nli.base.part_registry import import_parts
from gemma_nli.storage.bucket import Bucket, Changed, address_forms
from gemma_nli.storage.lease import Lease
from gemma_nli.storage.place import Place, Prefix, fetch_folder, folder_of, parse_address, place_of, store_folder
from gemma_nli.storage.record_files import BucketRecord, FolderRecord, record_of

import_parts(__name__)  # kinds of bucket register themselves

__all__ = [
    "Bucket",
    "BucketRecord",
    "Changed",
    "FolderRecord",
    "Lease",
    "Place",
    "Prefix",
    "address_forms",
    "fetch_folder",
    "folder_of",
    "parse_address",
    "place_of",
    "record_of",
    "store_folder",
]
