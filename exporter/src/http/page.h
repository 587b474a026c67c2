/*
 * page.h -- the live page and its two files.
 */
#ifndef MEMWATCH_EXPORTER_PAGE_H
#define MEMWATCH_EXPORTER_PAGE_H

#include "server.h"

enum MHD_Result page_index(struct request *request);
enum MHD_Result page_script(struct request *request);
enum MHD_Result page_style(struct request *request);

/* For who comes without the token: says how to get in. */
enum MHD_Result page_no_token(struct request *request);

#endif
