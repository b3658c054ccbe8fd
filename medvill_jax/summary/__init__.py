"""What the workdirs of runs hold, as one HTML page that needs nothing but a browser."""
