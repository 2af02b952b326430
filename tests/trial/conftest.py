"""The corpus and settings of the single runs' tests."""

from tests.local.conftest import config, corpus_folder, empty_database, few_posts, sqlite_uri

__all__ = ["config", "corpus_folder", "empty_database", "few_posts", "sqlite_uri"]
