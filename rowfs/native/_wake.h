/* Waking trio. */
#ifndef ROWFS_WAKE_H
#define ROWFS_WAKE_H

#include "_base.h"

/* Any thread: have trio's turn come soon. */
void wake_trio(void);
/* Trio's thread: its turn has come. */
void woken(void);
/* The descriptor that becomes readable with that; -1: there is none yet, or `make` has made none and errno says why. */
int wake_descriptor(bool make);

#endif
