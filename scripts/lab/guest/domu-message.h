/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Messages between dom0 (domu.c) and the guest (guest-agent.c).
 *
 * They go through xenstore: both sides have it from the start, and it needs no
 * grant of the guest but that of its own ring. Below the guest's data/ directory,
 * which the guest may write,
 *
 *	ready			the agent takes requests
 *	req/<slot>		a request: its length, written last
 *	req/<slot>/<n>		its bytes in chunks, from 0
 *	rsp/<slot>		the answer, in the same way
 *
 * The client names a slot that only it uses, and removes it in the end. A request is
 * words, each ended by a NUL. An answer is the exit status of "$DOMU" on a line, then
 * the output; with a status of -1 the output says why the request failed.
 */
#ifndef DOMU_MESSAGE_H
#define DOMU_MESSAGE_H

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenstore.h>

#define CHUNK	3500	/* a message of xenstore is 4096 bytes, with the path */

/* @dir: "req" or "rsp" in the guest's data directory, as this side names it */
static inline bool message_send(struct xs_handle *xs, const char *dir, const char *slot,
				const char *data, size_t len)
{
	char path[256], size[32];
	size_t at;

	for (at = 0; at < len; at += CHUNK) {
		snprintf(path, sizeof(path), "%s/%s/%zu", dir, slot, at / CHUNK);
		if (!xs_write(xs, XBT_NULL, path, data + at, len - at < CHUNK ? len - at : CHUNK))
			return false;
	}
	snprintf(path, sizeof(path), "%s/%s", dir, slot);
	return xs_write(xs, XBT_NULL, path, size, sprintf(size, "%zu", len));
}

/* Its bytes and a NUL, and removes the message; NULL if there is none (yet) */
static inline char *message_receive(struct xs_handle *xs, const char *dir, const char *slot,
				    size_t *len)
{
	char path[256], *data, *chunk;
	unsigned int got;
	size_t at;

	snprintf(path, sizeof(path), "%s/%s", dir, slot);
	chunk = xs_read(xs, XBT_NULL, path, &got);
	if (!chunk || !got)	/* no more than a parent of its chunks */
		return NULL;
	*len = strtoul(chunk, NULL, 10);
	free(chunk);
	data = calloc(1, *len + 1);
	for (at = 0; data && at < *len; at += got) {
		snprintf(path, sizeof(path), "%s/%s/%zu", dir, slot, at / CHUNK);
		chunk = xs_read(xs, XBT_NULL, path, &got);
		if (!chunk || !got || at + got > *len)
			return NULL;
		memcpy(data + at, chunk, got);
		free(chunk);
	}
	snprintf(path, sizeof(path), "%s/%s", dir, slot);
	xs_rm(xs, XBT_NULL, path);
	return data;
}

#endif
