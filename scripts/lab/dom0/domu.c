// SPDX-License-Identifier: GPL-2.0-only
/*
 * "$DOMU VERB ...": acts on the guest that dom0-run started. The verbs are in
 * dom0-run --help; most are a request to guest-agent.c.
 *
 * "mapped" asks Xen: an entry of the guest's grant table has its reading or
 * writing flag set as long as it is mapped. The table is read through
 * XENMEM_acquire_resource. Xen refuses this for the caller's own domain and may
 * refuse it for a dying one; the text of debug key "g" is parsed instead. Only
 * references from 8 on count. Those below are reserved for the rings of console
 * and xenstore, whose daemons always map them.
 */
#include <err.h>
#include <poll.h>
#include <stdint.h>
#include <sys/mman.h>
#include <xenctrl.h>
#include <xenforeignmemory.h>
#include <xen/grant_table.h>
#include <xen/memory.h>
#include "../guest/domu-message.h"

#define RESERVED_REFS	8
#define FRAME		4096UL

static int domid;

static xc_interface *xc_get(void)
{
	xc_interface *xc = xc_interface_open(NULL, NULL, 0);

	if (!xc)
		errx(126, "cannot talk to Xen (is this dom0?)");
	return xc;
}

static bool guest_runs(xc_interface *xc)
{
	xc_domaininfo_t info;

	return xc_domain_getinfolist(xc, domid, 1, &info) == 1 && info.domain == domid &&
	       !(info.flags & (XEN_DOMINF_shutdown | XEN_DOMINF_dying));
}

static struct xs_handle *store_get(void)
{
	struct xs_handle *xs = xs_open(0);

	if (!xs)
		err(126, "xenstore");
	return xs;
}

/* Returns when the node has a value, and fails if the guest does not run (any more) */
static void wait_node(struct xs_handle *xs, const char *node)
{
	struct pollfd watch = { .fd = watch_open(node), .events = POLLIN };
	xc_interface *xc = xc_get();
	unsigned int len;
	char *value, path[XENSTORE_PAYLOAD_MAX];
	bool there;

	if (watch.fd < 0)
		err(126, "watch of %s", node);
	for (;;) {
		value = xs_read(xs, XBT_NULL, node, &len);
		there = value && len;
		free(value);
		if (there)
			break;
		if (poll(&watch, 1, 1000) > 0 && watch_read(watch.fd, path))
			continue;
		if (!guest_runs(xc))
			errx(126, "guest %d does not run (any more)", domid);
	}
	close(watch.fd);
	xc_interface_close(xc);
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
	if (!rest)
		err(126, "cannot read the answer from xenstore");
	xs_rm(xs, XBT_NULL, path);

	*rest++ = 0;
	if (!strcmp(text, "E")) {
		fprintf(stderr, "domu: guest: %s", rest);
		return 126;
	}
	if (fwrite(rest, 1, text + len - rest, stdout) != (size_t)(text + len - rest) ||
	    fflush(stdout))
		err(126, "write");
	return atoi(text);
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
		err(126, "debug key g");
	len = sizeof(text) - 1;
	index = 0;
	if (xc_readconsolering(xc, text, &len, 0, 0, &index))
		err(126, "Xen's console ring");
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
		errx(126, "part of debug key g is lost; Xen's conring_size= is too small");
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

/* With --icount a nanosecond is an instruction. */
static int cpu_time(int id)
{
	xc_domaininfo_t info;

	if (xc_domain_getinfolist(xc_get(), id, 1, &info) != 1 || info.domain != id)
		errx(126, "there is no domain %d", id);
	printf("%llu\n", (unsigned long long)info.cpu_time);
	return 0;
}

static const char usage[] =
	"usage: $DOMU grant N [ro] | sha256 REF... | release REF... |\n"
	"             mapped [DOMID] | cpu [DOMID] | run PROGRAM [ARG]... | console | stop | destroy\n"
	"see scripts/dom0-run --help\n";

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "", *env = getenv("DOMU_ID");
	xc_interface *xc;
	char text[64];

	domid = env ? atoi(env) : -1;
	if (!strcmp(verb, "mapped") && (argc == 3 || domid > 0))
		return mapped(argc == 3 ? atoi(argv[2]) : domid);
	if (!strcmp(verb, "cpu") && (argc == 3 || domid > 0))
		return cpu_time(argc == 3 ? atoi(argv[2]) : domid);
	if (!*verb) {
		fputs(usage, stderr);
		return 126;
	}
	if (domid <= 0)
		errx(126, "DOMU_ID is not set: no guest (dom0-run --domu starts one)");

	if (!strcmp(verb, "wait")) {
		snprintf(text, sizeof(text), "/local/domain/%d/data/ready", domid);
		wait_node(store_get(), text);
		return 0;
	}
	if (!strcmp(verb, "stop")) {
		/* No answer comes from a guest that is down. */
		request((char *[]){ "run", "reboot", "-f", NULL }, false);
		for (xc = xc_get(); guest_runs(xc); )
			usleep(50000);
		return 0;
	}
	if (!strcmp(verb, "console") || !strcmp(verb, "destroy")) {
		snprintf(text, sizeof(text), "xl %s %d", verb, domid);
		return system(text) ? 126 : 0;
	}
	return request(argv + 1, true);
}
