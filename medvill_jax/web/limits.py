"""What the page accepts, and how much of it at a time."""

from __future__ import annotations

# Of a film's file; uncompressed digital radiographs have up to some 40 MB.
FILM_BYTES = 64 << 20
# Of what is typed.
TEXT_BYTES = 32 << 10
# Of a film in base64 with what is typed.
FILM_JSON_BYTES = 4 * -(-FILM_BYTES // 3) + TEXT_BYTES
QUESTION_LENGTH, REPORT_LENGTH = 500, 5000  # characters
# Requests that are worked on at a time, and the bytes of films that they may bring together.
REQUESTS = 64
BYTES_TOGETHER = 512 << 20
# Seconds in which a request must have arrived.
ARRIVAL = 60
# Films that wait for questions, and for how many seconds after the last one.
FILMS_KEPT, KEPT_FOR = 32, 30 * 60
ANSWERS_KEPT = 256  # of each film, maps among them
# Films that are computed together; batches have one or so many rows, so two programs are compiled for each task.
TOGETHER = 8
# Side of the picture of a film in the page, and of maps, pixels.
PICTURE, MAP = 1024, 128
# Films that are similar.
SIMILAR = 5
# Seconds that requests have to end after SIGTERM.
DRAIN = 60
