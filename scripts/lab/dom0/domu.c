// SPDX-License-Identifier: GPL-2.0-only
/*
 * "$DOMU VERB ...": acts on the guest that dom0-run started. The verbs are in
 * dom0-run --help; most are a request to guest-agent.c.
 *
 * "mapped" asks Xen: an entry of the guest's grant table has its reading or
 * writing flag set as long as it is mapped. Only references from 8 on count. Those
 * below are reserved for the rings of console and xenstore, whose daemons always
 * map them.
 */
#include <err.h>
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
 * It asks again and again: see guest-agent.c why it is no watch.
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
	for (size_t i = RESERVED_REFS; i < query.nr_frames * FRAME / sizeof(*entry); i++)
		if (*(volatile uint16_t *)&entry[i].flags & (GTF_reading | GTF_writing))
			count++;
	printf("%d\n", count);
	return 0;
}

int main(int argc, char **argv)
{
	const char *verb = argc > 1 ? argv[1] : "", *env = getenv("DOMU_ID");
	char text[64];

	domid = env ? atoi(env) : -1;
	if (!*verb)
		errx(126, "usage: $DOMU VERB, see scripts/dom0-run --help");
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
