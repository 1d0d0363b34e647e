/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Messages between dom0 (domu.c) and the guest (guest-agent.c).
 *
 * They go through xenstore, which both sides have before anything of the
 * lab runs, and which needs no grant of the guest's beyond its own ring: the
 * grants are what is under test. Below the guest's data/ directory, which
 * the guest may write,
 *
 *	lab/ready		the agent takes requests
 *	lab/<slot>/req		a request: its number of chunks, then chunk 0
 *	lab/<slot>/rsp		the answer, alike
 *	chunk/<slot>/<req|rsp>/<n>	chunks 1 and up, written before
 *
 * A slot belongs to one request; its client makes and removes it, so that
 * several requests do not meet.
 */
#ifndef DOMU_MESSAGE_H
#define DOMU_MESSAGE_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xen/io/xs_wire.h>

#define CHUNK	3500	/* XENSTORE_PAYLOAD_MAX holds the path as well */

struct message {
	char *data;
	size_t len;
};

static inline void message_add(struct message *msg, const void *data,
			       size_t len)
{
	msg->data = realloc(msg->data, msg->len + len + 1);
	if (!msg->data)
		abort();
	memcpy(msg->data + msg->len, data, len);
	msg->len += len;
	msg->data[msg->len] = 0;
}

/*
 * A connection to xenstore: the kernel's device, one request at a time. Not
 * libxenstore, whose static version loses answers when it has a watch.
 */
struct xs {
	int fd;
	uint32_t id;
	int events;		/* watch events that came, not yet taken */
	char event[64][256];	/* their paths */
};

static inline struct xs *xs_connect(void)
{
	struct xs *xs = calloc(1, sizeof(*xs));

	if (!xs)
		return NULL;
	xs->fd = open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC);
	if (xs->fd < 0) {
		free(xs);
		return NULL;
	}
	return xs;
}

static inline int xs_get_bytes(struct xs *xs, void *buf, size_t len)
{
	char *p = buf;
	ssize_t n;

	while (len) {
		n = read(xs->fd, p, len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		p += n;
		len -= n;
	}
	return 0;
}

/* Reads one message; watch events are put aside. 1: it was one of these */
static inline int xs_next(struct xs *xs, struct xsd_sockmsg *head, char *body)
{
	if (xs_get_bytes(xs, head, sizeof(*head)) ||
	    head->len > XENSTORE_PAYLOAD_MAX ||
	    xs_get_bytes(xs, body, head->len))
		return -1;
	body[head->len] = 0;
	if (head->type != XS_WATCH_EVENT)
		return 0;
	if (xs->events < 64 && strlen(body) < sizeof(xs->event[0]))
		strcpy(xs->event[xs->events++], body);
	return 1;
}

/* The answer's length, or -1 with errno set; @answer may be NULL */
static inline long xs_call(struct xs *xs, int type, const char *path,
			   const void *value, size_t len, char *answer)
{
	static char buf[sizeof(struct xsd_sockmsg) + XENSTORE_PAYLOAD_MAX + 1];
	struct xsd_sockmsg head = { .type = type, .req_id = ++xs->id };
	size_t plen = strlen(path) + 1, i;
	int err;

	head.len = plen + len;
	if (head.len > XENSTORE_PAYLOAD_MAX) {
		errno = E2BIG;
		return -1;
	}
	memcpy(buf, &head, sizeof(head));
	memcpy(buf + sizeof(head), path, plen);
	if (len)
		memcpy(buf + sizeof(head) + plen, value, len);
	if (write(xs->fd, buf, sizeof(head) + head.len) !=
	    (ssize_t)(sizeof(head) + head.len))
		return -1;

	do {
		err = xs_next(xs, &head, buf);
		if (err < 0)
			return -1;
	} while (err);
	if (head.type == XS_ERROR) {
		errno = EIO;
		for (i = 0; i < sizeof(xsd_errors) / sizeof(*xsd_errors); i++)
			if (!strcmp(xsd_errors[i].errstring, buf))
				errno = xsd_errors[i].errnum;
		return -1;
	}
	if (answer)
		memcpy(answer, buf, head.len + 1);
	return head.len;
}

static inline int xs_put(struct xs *xs, const char *path, const void *value,
			 size_t len)
{
	return xs_call(xs, XS_WRITE, path, value, len, NULL) < 0 ? -1 : 0;
}

static inline long xs_get(struct xs *xs, const char *path, char *value)
{
	return xs_call(xs, XS_READ, path, NULL, 0, value);
}

static inline int xs_remove(struct xs *xs, const char *path)
{
	return xs_call(xs, XS_RM, path, NULL, 0, NULL) < 0 ? -1 : 0;
}

static inline int xs_observe(struct xs *xs, const char *path)
{
	return xs_call(xs, XS_WATCH, path, "w", 2, NULL) < 0 ? -1 : 0;
}

/* Takes a watch event; timeout in ms as poll()'s. 0: none came; -1: error */
static inline int xs_event(struct xs *xs, char *path, size_t size, int timeout)
{
	static char buf[XENSTORE_PAYLOAD_MAX + 1];
	struct pollfd fd = { .fd = xs->fd, .events = POLLIN };
	struct xsd_sockmsg head;

	while (!xs->events) {
		if (poll(&fd, 1, timeout) <= 0)
			return 0;
		if (xs_next(xs, &head, buf) < 0)
			return -1;
	}
	snprintf(path, size, "%s", xs->event[0]);
	xs->events--;
	memmove(xs->event[0], xs->event[1],
		xs->events * sizeof(xs->event[0]));
	return 1;
}

/* @data: path of the guest's data directory, as this side names it */
static inline int message_send(struct xs *xs, const char *data,
			       const char *slot, const char *dir,
			       const struct message *msg)
{
	size_t chunks = msg->len ? (msg->len + CHUNK - 1) / CHUNK : 1;
	char path[256], head[CHUNK + 32];
	size_t i, len;

	for (i = 1; i < chunks; i++) {
		len = msg->len - i * CHUNK;
		snprintf(path, sizeof(path), "%s/chunk/%s/%s/%zu", data, slot,
			 dir, i);
		if (xs_put(xs, path, msg->data + i * CHUNK,
			   len < CHUNK ? len : CHUNK))
			return -1;
	}

	snprintf(path, sizeof(path), "%s/lab/%s/%s", data, slot, dir);
	i = snprintf(head, sizeof(head), "%zu\n", chunks);
	len = msg->len < CHUNK ? msg->len : CHUNK;
	if (len)
		memcpy(head + i, msg->data, len);
	return xs_put(xs, path, head, i + len);
}

/* 0: received; -1: not there (yet) */
static inline int message_receive(struct xs *xs, const char *data,
				  const char *slot, const char *dir,
				  struct message *msg)
{
	char path[256], buf[XENSTORE_PAYLOAD_MAX + 1], *end;
	size_t chunks, i;
	long len;

	snprintf(path, sizeof(path), "%s/lab/%s/%s", data, slot, dir);
	len = xs_get(xs, path, buf);
	if (len < 0)
		return -1;
	chunks = strtoul(buf, &end, 10);
	if (*end != '\n')
		return -1;
	end++;
	msg->data = NULL;
	msg->len = 0;
	message_add(msg, end, buf + len - end);

	for (i = 1; i < chunks; i++) {
		snprintf(path, sizeof(path), "%s/chunk/%s/%s/%zu", data, slot,
			 dir, i);
		len = xs_get(xs, path, buf);
		if (len < 0)
			return -1;
		message_add(msg, buf, len);
	}
	return 0;
}

#endif
