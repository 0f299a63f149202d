"""Work that is done once: numbers of versions, results of processing, and blocks that files share."""
