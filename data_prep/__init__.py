"""From official files to the TFDS datasets that training reads: `python -m data_prep --help`."""
