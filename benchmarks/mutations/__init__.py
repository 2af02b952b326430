"""Small faults put into a copy of the package, one at a time: do the tests of its part see it?

fault.py           one fault: a text, what it becomes, and the tests that must fail
*_rooms.py         the table: at least three for each room
__main__.py        `python -m benchmarks.mutations [ROOM ...]`
"""
