"""What every source and every sink must hold to: of spoold's own, and of yours.

`source.py` and `sink.py` need pytest and spoold and nothing else of these tests: copy them beside
the tests of a kind of your own and derive a class from the one that is in there.
"""
