// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest's side of "$DOMU ..." (see dom0-run --help): grants pages to dom0,
 * hashes them, takes them back, runs programs.
 *
 * Programs run in a child which sends the answer itself, so that pages can be
 * granted and hashed meanwhile.
 *
 * Every page is mapped by a VMA of its own, and only this VMA holds its grant
 * (gntalloc ends a grant that neither the file nor a VMA holds), so that munmap()
 * of one page ends one grant.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <xen/gntalloc.h>
#include <xen/io/xs_wire.h>
#include "domu-message.h"

#define PAGE	4096UL
#define MAX_REF	65536

/* By reference; NULL: not granted. */
static void *grants[MAX_REF];

/* Each function for a request writes its output to @out and returns its status. */
static int fail(FILE *out, const char *what, const char *why)
{
	fprintf(out, "%s: %s\n", what, why);
	return -1;
}

static int do_grant(FILE *out, char **word)
{
	struct ioctl_gntalloc_dealloc_gref dealloc;
	struct ioctl_gntalloc_alloc_gref *op;
	unsigned long n = strtoul(word[0], NULL, 0), i;
	int fd, status = 0;

	if (!n || (word[1] && strcmp(word[1], "ro")))
		return fail(out, "grant", "usage: grant N [ro]");
	fd = open("/dev/xen/gntalloc", O_RDWR | O_CLOEXEC);
	op = calloc(1, sizeof(*op) + n * sizeof(op->gref_ids[0]));
	if (fd < 0 || !op)
		err(1, "/dev/xen/gntalloc");
	op->count = n;
	op->flags = word[1] ? 0 : GNTALLOC_FLAG_WRITABLE;
	if (ioctl(fd, IOCTL_GNTALLOC_ALLOC_GREF, op)) {
		status = fail(out, "grant", strerror(errno));
		n = 0;
	}
	for (i = 0; i < n; i++) {
		unsigned int ref = op->gref_ids[i];
		void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
				  fd, op->index + i * PAGE);

		if (page == MAP_FAILED || ref >= MAX_REF ||
		    getrandom(page, PAGE, GRND_INSECURE) != PAGE) {
			status = fail(out, "a granted page", strerror(errno));
			break;
		}
		/* A long "run" must not hold what is released meanwhile. */
		madvise(page, PAGE, MADV_DONTFORK);
		grants[ref] = page;
		fprintf(out, "%u%c", ref, i + 1 < n ? ' ' : '\n');
	}
	dealloc.index = op->index;
	dealloc.count = n;
	if (n && ioctl(fd, IOCTL_GNTALLOC_DEALLOC_GREF, &dealloc))
		status = fail(out, "gntalloc", strerror(errno));
	free(op);
	close(fd);
	return status;
}

static int do_release(FILE *out, char **word)
{
	(void)out;
	for (; *word; word++) {
		munmap(grants[atoi(*word)], PAGE);
		grants[atoi(*word)] = NULL;
	}
	return 0;
}

static int do_sha256(FILE *out, char **word)
{
	char command[64];
	FILE *pipe;

	snprintf(command, sizeof(command), "sha256sum | cut -c -64 >&%d", fileno(out));
	pipe = popen(command, "w");
	for (; pipe && *word; word++)
		fwrite(grants[atoi(*word)], PAGE, 1, pipe);
	return pipe && !pclose(pipe) ? 0 : fail(out, "sha256sum", "it failed");
}

static int do_run(FILE *out, char **word)
{
	int status, null = open("/dev/null", O_RDONLY);
	pid_t pid = fork();

	if (!pid) {
		dup2(null, 0);
		dup2(fileno(out), 1);
		dup2(fileno(out), 2);
		execvp(word[0], word);
		fprintf(stderr, "%s: %s\n", word[0], strerror(errno));
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static void answer(struct xs_handle *xs, const char *slot, FILE *out, int status)
{
	static const char no_room[] = "-1\nthe answer does not fit into xenstore\n";
	long len, head;
	char *text;

	fseek(out, 0, SEEK_END);
	len = ftell(out);
	rewind(out);
	text = malloc(len + 16);
	if (!text)
		err(1, "memory");
	head = sprintf(text, "%d\n", status);
	len = head + fread(text + head, 1, len, out);
	if (!message_send(xs, "data/rsp", slot, text, len))
		message_send(xs, "data/rsp", slot, no_room, strlen(no_room));
	free(text);
}

static const struct verb {
	const char *name;
	int (*function)(FILE *out, char **word);
	bool on_grants;
} verbs[] = {
	{ "grant", do_grant, false },
	{ "release", do_release, true },
	{ "sha256", do_sha256, true },
	{ "run", do_run, false },
	{ NULL }
};

static void handle(struct xs_handle *xs, const char *slot)
{
	size_t len, at;
	char *req = message_receive(xs, "data/req", slot, &len), **word, *end;
	const struct verb *verb = verbs;
	int words = 0, status = 0, i;
	FILE *out;

	if (!req)
		return;
	word = calloc(len + 2, sizeof(*word));
	out = tmpfile();
	if (!word || !out)
		err(1, "memory");
	for (at = 0; at < len; at += strlen(req + at) + 1)
		word[words++] = req + at;

	while (verb->name && words && strcmp(verb->name, word[0]))
		verb++;
	if (!verb->name || words < 2)
		status = fail(out, words ? word[0] : "", "unknown, or without arguments");
	for (i = 1; verb->on_grants && i < words; i++) {
		unsigned long ref = strtoul(word[i], &end, 10);

		if (!*word[i] || *end || ref >= MAX_REF || !grants[ref])
			status = fail(out, word[i], "no grant of this guest");
	}
	if (status || verb->function != do_run) {
		answer(xs, slot, out, status ?: verb->function(out, word + 1));
	} else if (!fork()) {
		status = do_run(out, word + 1);
		answer(xs_open(0), slot, out, status);
		_exit(0);
	}
	fclose(out);
	free(req);
	free(word);
}

/*
 * Requests go through libxenstore, the watch to the kernel's device: there an event can
 * come before the answer to the watch, and the static libxenstore, which has no thread to
 * sort them, then closes the connection.
 */
int main(void)
{
	struct {
		struct xsd_sockmsg head;
		char path[9], token[1];
	} watch = { { .type = XS_WATCH, .len = 10 }, "data/req", "" };
	int events = open("/dev/xen/xenbus", O_RDWR | O_CLOEXEC);
	struct xs_handle *xs = xs_open(0);
	char event[4096], **slots;
	unsigned int n;

	if (xs && events >= 0 && write(events, &watch, sizeof(watch.head) + 10) > 0 &&
	    xs_write(xs, XBT_NULL, "data/ready", "1", 1)) {
		while (read(events, event, sizeof(event)) > 0) {
			slots = xs_directory(xs, XBT_NULL, "data/req", &n);
			for (unsigned int i = 0; slots && i < n; i++)
				handle(xs, slots[i]);
			free(slots);
			while (waitpid(-1, NULL, WNOHANG) > 0)
				;
		}
	}
	err(1, "xenstore");
}
