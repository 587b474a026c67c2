/*
 * page.h -- the live page and its two files.
 */
#ifndef PAGE_H
#define PAGE_H

#include "request.h"

enum MHD_Result page_index(struct request *request);
enum MHD_Result page_script(struct request *request);
enum MHD_Result page_style(struct request *request);

/* The token, for a one-time code. */
enum MHD_Result page_token(struct request *request);

/* A one-time code, for the token: tools open the page for a user without showing the token to the browser's history. */
enum MHD_Result page_code(struct request *request);

#endif
