// SPDX-License-Identifier: GPL-2.0-only
/*
 * "$DOMU VERB ...": dom0's hand on the guest that dom0-run started. The
 * verbs are in dom0-run --help; most are a request to guest-agent.c.
 *
 * "mapped" asks Xen: an entry of the guest's grant table has its reading or
 * writing flag set as long as somebody holds it mapped. The table is read
 * through XENMEM_acquire_resource, which Xen refuses for the caller's own
 * domain and may refuse for a dying one; then the text of debug key "g" is
 * parsed. Only references from 8 on count. Those below are reserved for the
 * console's and xenstore's rings, whose daemons hold them mapped at all times.
 */
#include <stdarg.h>
#include <time.h>
#include <sys/mman.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include "../guest/domu-message.h"

#define RESERVED_REFS	8
#define FRAME		4096UL

static int domid;

__attribute__((noreturn, format(printf, 1, 2)))
static void die(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	fputs("domu: ", stderr);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(126);
}

static double now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static xc_interface *xc_get(void)
{
	xc_interface *xc = xc_interface_open(NULL, NULL, 0);

	if (!xc)
		die("cannot talk to Xen (is this dom0?)");
	return xc;
}

/* 1: runs; 0: is there, shut down or dying; -1: is gone */
static int guest_state(xc_interface *xc)
{
	xc_domaininfo_t info;

	if (xc_domain_getinfolist(xc, domid, 1, &info) != 1 ||
	    info.domain != domid)
		return -1;
	return !(info.flags & (XEN_DOMINF_shutdown | XEN_DOMINF_dying));
}

static struct xs *store_get(char *data, size_t size)
{
	struct xs *xs = xs_connect();

	if (!xs)
		die("/dev/xen/xenbus: %s", strerror(errno));
	snprintf(data, size, "/local/domain/%d/data", domid);
	return xs;
}

/* Waits for the node to appear; limit < 0: as long as the guest runs */
static void wait_node(struct xs *xs, const char *node, double limit)
{
	char value[XENSTORE_PAYLOAD_MAX + 1], path[256];
	xc_interface *xc = xc_get();
	double start = now();

	if (xs_observe(xs, node))
		die("watch of %s: %s", node, strerror(errno));
	while (xs_get(xs, node, value) < 0) {
		if (limit >= 0 && now() - start > limit)
			die("guest %d gave no answer in %.0f s", domid, limit);
		if (!xs_event(xs, path, sizeof(path), 1000) &&
		    guest_state(xc) != 1)
			die("guest %d does not run (any more)", domid);
	}
	xc_interface_close(xc);
}

static int request(int argc, char **argv, double limit)
{
	struct message req = { NULL, 0 }, rsp;
	char data[64], slot[32], path[128];
	struct xs *xs = store_get(data, sizeof(data));
	int i, status = 126, tries;
	size_t at = 0;
	char *line;

	for (i = 0; i < argc; i++)
		message_add(&req, argv[i], strlen(argv[i]) + 1);

	snprintf(slot, sizeof(slot), "s%d", getpid());
	if (message_send(xs, data, slot, "req", &req))
		die("cannot write the request into xenstore: %s",
		    strerror(errno));
	snprintf(path, sizeof(path), "%s/lab/%s/rsp", data, slot);
	wait_node(xs, path, limit);
	if (message_receive(xs, data, slot, "rsp", &rsp))
		die("cannot read the answer from xenstore: %s",
		    strerror(errno));

	snprintf(path, sizeof(path), "%s/lab/%s", data, slot);
	for (tries = 0; tries < 2; tries++) {
		xs_remove(xs, path);
		snprintf(path, sizeof(path), "%s/chunk/%s", data, slot);
	}

	line = memchr(rsp.data, '\n', rsp.len);
	if (line) {
		*line = 0;
		at = line + 1 - rsp.data;
		if (strcmp(rsp.data, "E"))
			status = atoi(rsp.data);
	}
	if (status == 126 && line && !strcmp(rsp.data, "E")) {
		fprintf(stderr, "domu: guest: %s", rsp.data + at);
		return 126;
	}
	if (fwrite(rsp.data + at, 1, rsp.len - at, stdout) != rsp.len - at ||
	    fflush(stdout))
		die("write: %s", strerror(errno));
	return status;
}

static long mapped_by_table(xc_interface *xc, int id)
{
	struct gnttab_query_size query = { .dom = id };
	xenforeignmemory_resource_handle *res;
	xenforeignmemory_handle *fm;
	grant_entry_v1_t *entry;
	void *table = NULL;
	long i, n, count = 0;

	if (xc_gnttab_get_version(xc, id) != 1 ||
	    xc_gnttab_query_size(xc, &query) || query.status != GNTST_okay)
		return -1;
	fm = xenforeignmemory_open(NULL, 0);
	if (!fm)
		return -1;
	res = xenforeignmemory_map_resource(fm, id, XENMEM_resource_grant_table,
					    XENMEM_resource_grant_table_id_shared,
					    0, query.nr_frames, &table,
					    PROT_READ, 0);
	if (!res) {
		xenforeignmemory_close(fm);
		return -1;
	}
	entry = table;
	n = query.nr_frames * FRAME / sizeof(*entry);
	for (i = RESERVED_REFS; i < n; i++)
		if (*(volatile uint16_t *)&entry[i].flags &
		    (GTF_reading | GTF_writing))
			count++;
	xenforeignmemory_unmap_resource(fm, res);
	xenforeignmemory_close(fm);
	return count;
}

/*
 * Xen prints, per domain,
 *
 *	grant-table for remote d1 (v1)
 *	...
 *	      [0x008]  0 0x003e5f 0x00000001	  0 0x003e5f 0x19
 *
 * with a line for each active entry, and "no active grant table entries" or
 * the next domain after the last.
 */
static long mapped_by_debug_key(xc_interface *xc, int id)
{
	static char text[4 << 20];
	unsigned int len = sizeof(text) - 1, index = 0;
	char *line, *next;
	long count = 0;
	int dom, ref, here = 0, seen = 0, ended = 0;

	if (xc_readconsolering(xc, text, &len, 1, 0, &index) ||
	    xc_send_debug_keys(xc, "g"))
		die("debug key g: %s", strerror(errno));
	len = sizeof(text) - 1;
	index = 0;
	if (xc_readconsolering(xc, text, &len, 0, 0, &index))
		die("Xen's console ring: %s", strerror(errno));
	text[len] = 0;

	for (line = text; line && *line; line = next) {
		char *p;

		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		p = strstr(line, "grant-table for remote d");
		if (p && sscanf(p, "grant-table for remote d%d", &dom) == 1) {
			here = dom == id;
			seen |= here;
			continue;
		}
		if (strstr(line, "gnttab_usage_print_all ] done"))
			ended = 1;
		p = strchr(line, '[');
		if (here && p && sscanf(p, "[0x%x]", (unsigned int *)&ref) == 1 &&
		    ref >= RESERVED_REFS)
			count++;
	}
	if (!ended)
		die("the answer to debug key g is not whole; Xen's conring_size= is too small");
	return seen ? count : 0;
}

static int mapped(int id)
{
	xc_interface *xc = xc_get();
	long count = mapped_by_table(xc, id);

	if (count < 0)
		count = mapped_by_debug_key(xc, id);
	printf("%ld\n", count);
	return 0;
}

static int wait_down(double limit)
{
	xc_interface *xc = xc_get();
	double start = now();

	while (guest_state(xc) == 1) {
		if (now() - start > limit)
			die("guest %d still runs after %.0f s", domid, limit);
		usleep(50000);
	}
	return 0;
}

static const char usage[] =
	"usage: $DOMU grant N [ro] | sha256 REF... | release REF... |\n"
	"             mapped [DOMID] | run PROGRAM [ARG]... | stop | destroy\n"
	"see scripts/dom0-run --help\n";

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "", *env = getenv("DOMU_ID");
	char data[64], path[128];
	struct xs *xs;

	domid = env ? atoi(env) : -1;
	if (!strcmp(verb, "mapped") && (argc == 3 || (argc == 2 && domid > 0)))
		return mapped(argc == 3 ? atoi(argv[2]) : domid);
	if (!*verb) {
		fputs(usage, stderr);
		return 126;
	}
	if (domid <= 0)
		die("DOMU_ID is not set: no guest (dom0-run --domu starts one)");

	if (!strcmp(verb, "wait") && argc == 2) {
		xs = store_get(data, sizeof(data));
		snprintf(path, sizeof(path), "%s/lab/ready", data);
		wait_node(xs, path, -1);
		return 0;
	}
	if ((!strcmp(verb, "grant") && (argc == 3 || argc == 4)) ||
	    (!strcmp(verb, "sha256") && argc > 2) ||
	    (!strcmp(verb, "release") && argc > 2))
		return request(argc - 1, argv + 1, 60);
	if (!strcmp(verb, "run") && argc > 2)
		return request(argc - 1, argv + 1, -1);
	if (!strcmp(verb, "stop") && argc == 2) {
		int status = request(argc - 1, argv + 1, 30);

		return status ? status : wait_down(30);
	}
	if (!strcmp(verb, "destroy") && argc == 2) {
		snprintf(path, sizeof(path), "xl destroy %d", domid);
		return system(path) ? 126 : 0;
	}
	fputs(usage, stderr);
	return 126;
}
