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
 * The client names a slot that only it uses, and removes it in the end.
 *
 * Requests go through libxenstore, watches to the kernel's device: there an event can
 * come before the answer to the watch, and the static libxenstore, which has no thread
 * to sort them, then closes the connection.
 */
#ifndef DOMU_MESSAGE_H
#define DOMU_MESSAGE_H

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xenstore.h>
#include <xen/io/xs_wire.h>

#define CHUNK	3500	/* a message of xenstore is 4096 bytes, with the path */

/* A file descriptor of a watch, or -1 */
static inline int watch_open(const char *path)
{
	struct xsd_sockmsg head = { .type = XS_WATCH, .len = strlen(path) + 2 };
	char msg[sizeof(head) + 256] = "";	/* the token is empty */
	int fd = open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC);

	memcpy(msg, &head, sizeof(head));
	memcpy(msg + sizeof(head), path, strlen(path));
	if (write(fd, msg, sizeof(head) + head.len) < 0)
		return -1;
	return fd;
}

/* Waits for a message of a watch, and sets @path to that of an event, else to "" */
static inline bool watch_read(int fd, char path[XENSTORE_PAYLOAD_MAX])
{
	struct xsd_sockmsg head;

	if (read(fd, &head, sizeof(head)) != sizeof(head) || head.len > XENSTORE_PAYLOAD_MAX ||
	    read(fd, path, head.len) != (ssize_t)head.len || head.type == XS_ERROR)
		return false;
	if (head.type != XS_WATCH_EVENT)
		*path = 0;
	return true;
}

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
	snprintf(size, sizeof(size), "%zu", len);
	return xs_write(xs, XBT_NULL, path, size, strlen(size));
}

/* The bytes and a NUL after them; NULL if there is no message (yet) */
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
	return data;
}

#endif
