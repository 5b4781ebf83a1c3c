"""A sweep: planned in `plan`, measured in `worker` processes, kept alive and on disk by `runner`."""
