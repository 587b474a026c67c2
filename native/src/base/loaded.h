/*
 * loaded.h -- keeps the object that holds this code loaded, also when its host closes it.
 */
#ifndef LOADED_H
#define LOADED_H

/* Call it where no lock of ours is held: it takes the dynamic linker's. */
void loaded_for_ever(void);

#endif
