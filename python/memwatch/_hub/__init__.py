"""`memwatch hub`: one port for all watchers of this user on this machine.

DESIGN  One thread, one event loop. `workers` knows who is there and what the dead had counted, `upstream` talks to
them, `merge` makes one scrape of many, `stream` one stream of many, `access` says who is answered, `server` answers.
Nothing here runs in a watched process, and no watched process waits for it.
"""
