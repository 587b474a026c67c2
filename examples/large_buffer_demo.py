#!/usr/bin/env python3
"""Large buffers: above 4 KiB an event carries storage keys; `watcher.load` brings the versions back."""

from memwatch import MemoryWatcher


def on_change(event):
    print(f"{event.seq}. {event.variable_name}: {event.changed_bytes:,} of {event.how_big:,} bytes changed")
    print(f"   old   {event.storage_key_old}, begins {event.old_preview[:8]!r}")
    print(f"   new   {event.storage_key_new}, begins {event.new_preview[:8]!r}")
    print(f"   where {event.where.function}, line {event.where.line}")


def stamp(image, number):
    image[: len(image) // 100] = bytes([number]) * (len(image) // 100)


def main():
    image = bytearray(4_000_000)
    events = []

    def keep(event):
        events.append(event)
        on_change(event)

    with MemoryWatcher() as watcher:
        watcher.watch(image, name="image", callback=keep)
        for number in (1, 2, 3):
            stamp(image, number)
            watcher.flush()

        for event in events:
            version = watcher.load(event.storage_key_new)
            print(f"version {event.seq}: {len(version):,} bytes, first {version[0]}, last {version[-1]}")
        assert watcher.load(events[-1].storage_key_new) == image

        stats = watcher.get_stats()
        print(f"history: {stats['history_bytes']:,} bytes for {stats['history_versions']} versions of {len(image):,}")


if __name__ == "__main__":
    main()
