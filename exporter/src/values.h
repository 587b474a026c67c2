/*
 * values.h -- values and their past: by storage key, and of one region.
 */
#ifndef VALUES_H
#define VALUES_H

#include "http/request.h"

#define VALUES_KEY_PATH "/api/v1/values/"
#define VALUES_REGION_PATH "/api/v1/regions/"

/* /api/v1/values/KEY */
enum MHD_Result values_by_key(struct request *request);

/* /api/v1/regions/ID/history, …/value, …/blame */
enum MHD_Result values_of_region(struct request *request);

#endif
