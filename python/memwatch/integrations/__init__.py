"""memwatch inside other software: existing metrics, web applications, notebooks, tests. Imported where it is used."""
