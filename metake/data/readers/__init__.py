"""Readers of the formats of docs/data.md: one file each, and a row of `table.SHIPPED`."""
