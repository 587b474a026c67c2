/*
 * schema.h -- the tables of a recording; docs/recording.md describes them.
 */
#ifndef RECORDER_SCHEMA_H
#define RECORDER_SCHEMA_H

/* "memw"; and what changes with every change of a table's meaning: see docs/recording.md. */
enum { SCHEMA_APPLICATION = 0x6d656d77, SCHEMA_VERSION = 2 };

extern const char schema_sql[];
/* From version 1, which a file has in full, to this one. */
extern const char schema_upgrade_sql[];

#endif
