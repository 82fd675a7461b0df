"""rowfs: virtual disks as files, with live redirect-on-write snapshots."""

__version__ = "0.1.0"
