"""What a picture is judged by that no objective here looks at: a judge a file, all of them together in `panel.py`."""
