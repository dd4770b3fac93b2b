"""Readers of scenes on disk, one module a format; each returns a `data.source.Source`, read in place."""
