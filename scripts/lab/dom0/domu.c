// SPDX-License-Identifier: GPL-2.0-only
/*
 * "$DOMU VERB ...": acts on the guest that dom0-run started. The verbs are in
 * dom0-run --help. Most are a request to the agent in the guest, which is this program
 * under the name guest-agent.
 *
 * Requests go through xenstore: both sides have it from the start, and it needs no
 * grant of the guest but that of its own ring. Below the guest's data/ directory,
 * which the guest may write,
 *
 *	ready			the agent takes requests
 *	req/<slot>		a request: its length, written last
 *	req/<slot>/<n>		its bytes in chunks, from 0
 *	rsp/<slot>		the answer, in the same way
 *
 * The client names a slot that only it uses. A request is words, each ended by a NUL.
 * An answer is the exit status of "$DOMU" on a line, then the output; with a status of
 * -1 the output says why the request failed.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xenstore.h>
#include <xen/gntalloc.h>
#include <xen/grant_table.h>
#include <xen/io/xs_wire.h>
#include <xen/memory.h>

#define PAGE		4096UL
#define CHUNK		3500	/* a message of xenstore is 4096 bytes, with the path */
#define MAX_REF		65536
#define RESERVED_REFS	8

/* @dir: "req" or "rsp" in the guest's data directory, as this side names it */
static bool message_send(struct xs_handle *xs, const char *dir, const char *slot,
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
static char *message_receive(struct xs_handle *xs, const char *dir, const char *slot,
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

/* ------------------------------------------------------------------ */
/* In the guest */

/*
 * By reference; NULL: not granted.  Every page is mapped by a VMA of its own, and only
 * this VMA holds its grant (gntalloc ends a grant that neither the file nor a VMA
 * holds), so that munmap() of one page ends one grant.
 */
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

/*
 * Programs run in a child which sends the answer itself, so that pages can be
 * granted and hashed meanwhile.
 */
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
static int agent(void)
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

/* ------------------------------------------------------------------ */
/* In dom0 */

static int domid;

static xc_interface *xc_get(void)
{
	static xc_interface *xc;

	if (!xc)
		xc = xc_interface_open(NULL, NULL, 0);
	if (!xc)
		errx(126, "cannot talk to Xen (is this dom0?)");
	return xc;
}

static bool guest_runs(void)
{
	xc_domaininfo_t info;

	return xc_domain_getinfolist(xc_get(), domid, 1, &info) == 1 && info.domain == domid &&
	       !(info.flags & (XEN_DOMINF_shutdown | XEN_DOMINF_dying));
}

static struct xs_handle *store_get(void)
{
	struct xs_handle *xs = xs_open(0);

	if (!xs)
		err(126, "xenstore");
	return xs;
}

/*
 * Returns when the node has a value, and fails if the guest does not run (any more).
 * It asks again and again: see agent() why it is no watch.
 */
static void wait_node(struct xs_handle *xs, const char *node)
{
	unsigned int len, nap = 1000;
	bool runs = true;
	char *value;

	while (!(value = xs_read(xs, XBT_NULL, node, &len)) || !len) {
		free(value);
		if (!runs)
			errx(126, "guest %d does not run (any more)", domid);
		runs = guest_runs();
		usleep(nap);
		nap = nap < 100000 ? nap * 2 : nap;
	}
	free(value);
}

/* @verb: a name and its arguments, with NULL after them; @wait: for the answer */
static int request(char **verb, bool wait)
{
	char *text, *rest, slot[32], req[64], rsp[64], path[128];
	struct xs_handle *xs = store_get();
	FILE *out;
	size_t len;

	out = open_memstream(&text, &len);
	for (; out && *verb; verb++)
		fwrite(*verb, strlen(*verb) + 1, 1, out);
	if (!out || fclose(out))
		err(126, "request");

	snprintf(slot, sizeof(slot), "%d", getpid());
	snprintf(req, sizeof(req), "/local/domain/%d/data/req", domid);
	snprintf(rsp, sizeof(rsp), "/local/domain/%d/data/rsp", domid);
	if (!message_send(xs, req, slot, text, len))
		err(126, "cannot write the request into xenstore");
	if (!wait)
		return 0;
	snprintf(path, sizeof(path), "%s/%s", rsp, slot);
	wait_node(xs, path);
	text = message_receive(xs, rsp, slot, &len);
	rest = text ? memchr(text, '\n', len) : NULL;
	if (!rest++)
		err(126, "cannot read the answer from xenstore");
	if (atoi(text) < 0)
		errx(126, "guest: %.*s", (int)strcspn(rest, "\n"), rest);
	if (fwrite(rest, 1, text + len - rest, stdout) != (size_t)(text + len - rest) ||
	    fflush(stdout))
		err(126, "write");
	return atoi(text);
}

/*
 * Asks Xen: an entry of the guest's grant table has its reading or writing flag set as
 * long as it is mapped.  The first references are reserved for the rings of console
 * and xenstore, whose daemons always map them.
 */
static int mapped(void)
{
	xenforeignmemory_handle *fm = xenforeignmemory_open(NULL, 0);
	struct gnttab_query_size query = { .dom = domid };
	grant_entry_v1_t *entry;
	void *table = NULL;
	int count = 0;

	if (xc_gnttab_get_version(xc_get(), domid) != 1)
		errx(126, "domain %d has no grant table of version 1", domid);
	if (!fm || xc_gnttab_query_size(xc_get(), &query) || query.status != GNTST_okay ||
	    !xenforeignmemory_map_resource(fm, domid, XENMEM_resource_grant_table,
					   XENMEM_resource_grant_table_id_shared, 0,
					   query.nr_frames, &table, PROT_READ, 0))
		err(126, "the grant table of domain %d", domid);
	entry = table;
	for (size_t i = RESERVED_REFS; i < query.nr_frames * PAGE / sizeof(*entry); i++)
		if (*(volatile uint16_t *)&entry[i].flags & (GTF_reading | GTF_writing))
			count++;
	printf("%d\n", count);
	return 0;
}

/* What a domain has run, with Xen on its behalf */
static int cpu_time(int id)
{
	xc_domaininfo_t info;

	if (xc_domain_getinfolist(xc_get(), id, 1, &info) != 1 || info.domain != id)
		errx(126, "there is no domain %d", id);
	printf("%llu\n", (unsigned long long)info.cpu_time);
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "", *env = getenv("DOMU_ID");
	char text[64];

	if (strstr(argv[0], "guest-agent"))
		return agent();
	domid = env ? atoi(env) : -1;
	if (!*verb)
		errx(126, "usage: $DOMU VERB, see scripts/dom0-run --help");
	if (!strcmp(verb, "cpu-time") && argc == 3)
		return cpu_time(atoi(argv[2]));
	if (domid <= 0)
		errx(126, "DOMU_ID is not set: no guest (dom0-run --domu starts one)");

	if (!strcmp(verb, "mapped"))
		return mapped();
	if (!strcmp(verb, "wait")) {
		snprintf(text, sizeof(text), "/local/domain/%d/data/ready", domid);
		wait_node(store_get(), text);
		return 0;
	}
	if (!strcmp(verb, "stop")) {
		/* No answer comes from a guest that is down. */
		request((char *[]){ "run", "reboot", "-f", NULL }, false);
		while (guest_runs())
			usleep(50000);
		return 0;
	}
	if (!strcmp(verb, "console") || !strcmp(verb, "destroy")) {
		snprintf(text, sizeof(text), "xl %s %d", verb, domid);
		return system(text) ? 126 : 0;
	}
	return request(argv + 1, true);
}
