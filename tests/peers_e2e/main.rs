//! Stories told with clients and registries that other people wrote.
