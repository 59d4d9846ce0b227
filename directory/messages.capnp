@0xc2f9a3d1e6b7485d;
# Messages between nodes about pages: the wire form of directory/messages.h, whose names are used here. directory/codec.cc
# is the only source that includes what is generated from this file.
#
# A transport message carries the bytes of one `Packet` (one segment, Cap'n Proto's plain stream framing, so that
# `capnp decode` reads a captured one) and beside it up to 64 pages of 4096 bytes. It is at most 12 KiB long without them.
# Who sent it, as which incarnation and in which view, is said by the transport's envelope.
#
# Roles: R requester (its cache), H the page's responsible node, O its owner, S a sharer (has a read copy), F who flushes,
# C a core holder, A who allocates, * every node.
#
# What a reader refuses: an unknown kind, access, holding or status code; a page 0 where the kind names a page; a range
# that leaves the address space, or is of no or more than 512 pages in request, flush, reverted and lost; a data index
# without a page, a page named twice or not at all; a text without an error; an entry that stands for no or more than 512
# messages, or for several with a range or an error; a packet that stands for more than 2048 messages.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("mangrove::wire");

struct Packet {
  messages @0 :List(PageMessage);
  # In the order in which they were sent. The receiver handles them in this order.
}

enum Kind {
  # A page's transaction. All name `page`, and `txn` unless it says otherwise.

  request @0;
  # R→H. "I need `count` pages from `page` on, for `access`." No txn. `request` numbers it; `have`: R holds a read copy.
  # Answered by grant, requestFailed or, meanwhile, delayed.

  cancel @1;
  # R→H. Nobody waits for `request` any more. No txn, no answer. A grant that is under way is still valid.

  requestFailed @2;
  # H→R. `request` ends with the error in `code` and `text`. No txn.

  delayed @3;
  # H→R. `request` is in hand, and waits for node `peer`. For error messages and for people. No txn.

  forward @4;
  # H→O. Send the page to `peer` (R), in a grant that answers R's `request`, with `active` and `grantEpoch` as they are here.
  # `access` read: keep a read copy. `access` write or move: keep the frame, inaccessible, until transferDone or
  # transferAborted. Of a move `exclusive`: nobody else holds a copy.

  invalidate @5;
  # H→S,O. Give the copy up. `retain` (O only): keep the frame as after a forward for writing.

  invalidateAck @6;
  # S,O→H. No load or store on it is possible here any more.

  grant @7;
  # O,H→R. Answers `request`: R has `access` to the page as of `version`; `flushed` is the newest version that every core
  # holder is known to have. Writes are numbered in `grantEpoch`. `config`, `replicas`: what stores of it must name.
  # `active`: valid at once; otherwise when activate comes. `exclusive`: nobody else holds a copy. `owner`: R is the owner
  # from now on. `data`: the content; none: the read copy that R has is current.

  activate @8;
  # H→R. Every other copy is gone: the grant that answers `request` counts.

  grantAck @9;
  # R→H. The grant is installed.

  grantRefused @10;
  # R→H. The grant was not installed and never will be: nobody waits for it. O→H, of a move: O keeps the page, which is used
  # there again.

  transferDone @11;
  # H→O. The page has arrived; drop the frame that was kept.

  transferAborted @12;
  # H→O. The page did not arrive; the frame that was kept is the owner's again.

  stillRetained @13;
  # O→H. A frame was kept for long: is this transfer over? Answered by transferDone or transferAborted.

  notHeld @14;
  # O→H. Answers forward or invalidate: the page is not here.

  evictRequest @15;
  # O→H. The owner wants to drop its copy, which can be read from a disk again. No txn.

  evictGrant @16;
  # H→O. It may, in this transaction.

  evictAck @17;
  # O→H. It did; `kept`: it did not, because the page was used meanwhile.

  # Recovery of a page after the loss of a node.

  report @18;
  # H→*. Say what you hold of the page; forget every earlier transaction of it.

  reported @19;
  # *→H. Answers report: `holding`, `version`, `flushed`.

  resolve @20;
  # H→*. What you held is from now on `holding`; writes are numbered in `grantEpoch`. Without a loss it makes a sharer of a page
  # that nobody owns its owner, `complete`: every core holder has the page as it is.

  resolveAck @21;
  # *→H. Done.

  # A node that becomes responsible for a segment, and is not the first, learns what is cached of it; or which extents its disk
  # should keep. No txn.

  registerRequest @22;
  # H→*. Register every page of the segment of `page` that you hold. `request` numbers the round.

  register @23;
  # *→H. One page of round `request`: `holding`, `version`, `config`.

  registerEnd @24;
  # *→H. Round `request` is complete: it had `count` messages of kind register. `txn`, `grantEpoch`: the highest that I have
  # used or seen.

  # Flush. No txn.

  flush @25;
  # F→H, H→O. Make what the page holds durable, and answer `peer` (F) as `request`. F→H of `count` pages: is every one of them
  # without owner, and the same at all its core holders?

  flushed @26;
  # O,H→F. Answers flush: done, or `code` and `text`. Aborted: the owner has changed meanwhile, ask again; of several pages:
  # not all of them are, ask for each. `owner`: the page has one, who says so.

  # Core holders. No txn. A holder echoes page, count and request.

  store @27;
  # O,H→C. Make `data` durable as `version` of the page, under configuration `config`. `complete`: written by recovery, which
  # may repeat a version of an epoch that is sealed.

  stored @28;
  # C→O,H. Answers store: the holder has `version` (maybe a newer one). FailedPrecondition: the page is in no extent here, or
  # `config` is not the extent's; Aborted: the epoch of the version is sealed.

  queryStored @29;
  # H→C. What is stored of the page? `seal`: refuse stores of versions older than `grantEpoch` from now on. `withData`: send
  # the content too.

  storedInfo @30;
  # C→H. Answers queryStored: `version` (0.0: zeros, never written), `config`, `replicas`, `isVolatile`, `data` if asked for and
  # `version` is not 0.0. `have`: there is a record on disk. `complete`: or its absence means zeros. NotFound: the page is in no extent here; DataLoss: its record is
  # corrupt.

  putExtent @31;
  # A,H→C. `count` pages from `page` on are allocated under configuration `config`, all zeros: forget what was there.
  # `replicas`, `isVolatile` as allocated. FailedPrecondition: there is a newer configuration here.

  dropExtent @32;
  # A→C. The range is not allocated any more, up to configuration `config`. Comes after dropCopies. `complete`: only what of it is in
  # doubt, as a node tells its own disk.

  done @33;
  # C,H→A,H,R. Answers putExtent, dropExtent, dropCopies and moved: `code` and `text`.

  # News for everybody. No txn.

  reverted @34;
  # H→*. `count` pages from `page` on went back to an older version.

  lost @35;
  # H→*. No copy is left of `count` pages from `page` on.

  # For operators. No txn.

  inspect @36;
  # any→any. What do you know of `page`, and of yourself?

  inspected @37;
  # any→any. Answers inspect: `data` is a JSON document, padded with zeros.

  # A page's transaction again.

  transferDropped @38;
  # O→H. Answers transferDone: nothing of the transfer `txn`, or of an earlier one, is kept here any more. It waits for another
  # message to travel with.

  # Ranges. No txn.

  queryExtent @39;
  # H→C. Which extent is the page in? `grantEpoch`: since when I serve its segment.

  extentInfo @40;
  # C→H. Answers queryExtent: `count` pages from `page` on, `config`, `replicas`, `isVolatile`. `complete`: nothing of it was
  # ever stored, and no other responsible node of the segment, nor this one in an earlier stay, was told so. NotFound: the page is in none.

  dropCopies @41;
  # A→H. The range is being unallocated, up to configuration `config`: drop every copy in RAM, and never open it from a disk
  # again.

  # The directory. No txn.

  notResponsible @42;
  # any→R. I am not responsible for the segment of `page`: ask the directory who is.

  claimRequest @43;
  # any→any. What do you claim in the interval in `data` (first page, 16 bytes; the page behind it, 16)? No page.

  claims @44;
  # any→any. Answers claimRequest: `count` claims in `data`, of 40 bytes each: first page, 16; segments, 4; term, 4; responsible node,
  # 8; 1 if I am not responsible, but hold pages that I got from that node, 8. `txn`, `grantEpoch`: the highest that I have used
  # or seen. `page`: where the rest begins; 0: there is none.

  retire @45;
  # any→H. The page of the directory is no part of it any more.

  # Responsibility for the segment that begins at `page` moves: engine/move_segment.cc. No txn of a page.

  moveOffer @46;
  # H→R. You ask for pages of the segment more than anybody else: take it.

  handOver @47;
  # R→H. Serve nothing of the segment any more, and say what you know of it: part `count`, from 1 on. `config`: number of the
  # hand-over, as the answer to the first part names it; 0 in the question for the first.

  handedOver @48;
  # H→R. Answers handOver: `data` is that part, of `count`; engine/segment_state.cc has its form. `config`: number of the
  # hand-over. `txn`, `grantEpoch`: the highest that I have used or seen. Or `code` and `text`: not now.

  moved @49;
  # R→H. The directory names me: forget hand-over `config`. Or `code`: it does not, serve on. Answered by done.

  # Eviction to another node's RAM. No txn.

  resources @50;
  # any→any. I have room for `count` pages of other nodes, `versionCounter` bytes free on my disk, and ask for or give away
  # `replicas` pages in a second. No page.

  offer @51;
  # O→H, H→any. O has no room for the page; it has moved so `replicas` times since it was used. O→H: `peer` has room, unless you
  # know of a sharer. H→any, `kept`: take it from `peer` (O), by a request for a move, if you still have room. A hint, that may be
  # lost.

  declined @52;
  # any→O. There is no room here for the page that was offered.

  # A disk that is behind catches up. No txn.

  listStored @53;
  # C→C. What do you have of the ranges that both of us keep, from `page` on (0: from the first)? `withData`: which pages, in which
  # versions; otherwise which extents.

  storedList @54;
  # C→C. Answers listStored: `data` is a part of it; engine/stored_list.cc has its form. `page`: where the next part begins; 0:
  # there is none.

  wentBack @55;
  # H→*. Since level 2. Answered by done: nothing newer than `version` under `config` was found of the page, when it was opened after a
  # loss; `grantEpoch`: what was written under grants of it, or later ones, came after that.
}

enum Access {
  read @0;
  write @1;
  move @2;  # The owner's copy as it is, which O has offered since it needs the room. No version begins.
}

enum Holding {
  # What a cache holds of a page.
  none @0;
  shared @1;    # A read copy.
  owner @2;     # The owner's copy.
  retained @3;  # What it gave up in a transfer that it does not know to be complete.
}

struct PageMessage {
  # One message: the union of all kinds' fields. What a kind does not name above has its default, zero (count: one).

  kind @0 :Kind;

  pageHigh @1 :UInt64;
  pageLow @2 :UInt64;
  # Number of the page, its address divided by 4096: the upper and the lower 64 bits.

  count @3 :UInt64 = 1;
  # Pages, from `page` on. In registerEnd: messages.

  txn @4 :UInt64;
  # Number of the responsible node's transaction: 24 bits of the view's epoch, then 40 bits of a count. Grows.

  request @5 :UInt64;
  # The asker's number of the request, new for each in one incarnation of the asker. 0: none.

  peerNode @6 :UInt64;
  peerIncarnation @7 :UInt64;
  # Another node that this is about, and its start.

  access @8 :Access;
  holding @9 :Holding;

  versionEpoch @10 :UInt64;
  versionCounter @11 :UInt64;
  # A version of the page's content: the epoch of the grant that it was written under, then a counter. 0.0: zeros.

  flushedEpoch @12 :UInt64;
  flushedCounter @13 :UInt64;
  # The newest version known to be durable at every core holder.

  grantEpoch @14 :UInt64;
  # Epoch of a grant; in queryStored the lowest epoch that may still be stored.

  config @15 :UInt64;
  # Number of the configuration of the page's range.

  replicas @16 :UInt32;
  # Core holders that the range was allocated with.

  active @17 :Bool;
  have @18 :Bool;
  exclusive @19 :Bool;
  owner @20 :Bool;
  retain @21 :Bool;
  kept @22 :Bool;
  seal @23 :Bool;
  complete @24 :Bool;
  withData @25 :Bool;
  isVolatile @26 :Bool;
  # As the kinds say.

  code @27 :UInt8;
  # How it went: a canonical status code, as in absl/status/status.h. 0: OK.

  data @28 :UInt8;
  # 1 + the index of the content among the pages that travel with the packet. 0: none. Each page is named exactly once.

  text @29 :Text;
  # Of the error, for people; at most 200 bytes. Only where `code` is not 0.

  hurry @30 :Bool;
  # Of forward and grant: others wait for the page, so that grantAck must not wait for another message to travel with.

  repeat @31 :UInt16 = 1;
  # This entry stands for so many messages, which differ in `page`, `txn`, `request` and `data` alone: each counts up by one
  # from message to message; `txn`, `request` and `data` only where they are not 0 in the first. `count` is 1, `code` 0.
}
