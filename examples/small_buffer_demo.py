#!/usr/bin/env python3
"""Small buffers: up to 4 KiB an event carries the values themselves, old and new."""

from memwatch import MemoryWatcher


def on_change(event):
    where = event.where
    print(f"{event.seq}. {event.variable_name} ({event.how_big} bytes) changed")
    print(f"   old   {event.old_value!r}")
    print(f"   new   {event.new_value!r}")
    print(f"   bytes {', '.join(f'{offset}..{offset + length - 1}' for offset, length in event.changes)}")
    print(f"   where {where.function}, line {where.line}, thread {event.thread_name} ({where.attribution})")


def greet(message):
    message[0:5] = b"HELLO"


def count(counter):
    counter[0] += 1


def main():
    message = bytearray(b"hello, world")
    counter = bytearray(4)
    with MemoryWatcher() as watcher:
        watcher.set_callback(on_change)
        watcher.watch(message, name="message")
        watcher.watch(counter, name="counter")

        greet(message)
        watcher.flush()  # otherwise writes within a few milliseconds of each other become one event
        count(counter)
        watcher.flush()
        count(counter)
        message[0:5] = b"HELLO"  # the same bytes: no event
        watcher.flush()

        stats = watcher.get_stats()
        print(f"{stats['delivered']} events, {stats['unchanged']} writes of the same bytes, backend {stats['backend']}")


if __name__ == "__main__":
    main()
