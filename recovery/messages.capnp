@0xb7d4e09a62c1f835;
# What nodes tell each other about who is there, and what an anchor writes of its log: the wire and disk form of
# recovery/messages.h, raft_log.h and node_database.h, whose names are used here. recovery/codec_log.h alone includes
# what is generated from this file.
#
# A node's roster (recovery/roster.h) is on its disk as a Database without a view.
#
# The bytes of each root (Message, Command, Database, LogState, Entry, Snapshot) are one segment in Cap'n Proto's plain stream
# framing, so that `capnp decode` reads a captured one. A Message is at most 12 KiB long, one transport message without pages;
# a Command at most 4 KiB, one entry of the log. Who sent a message, as which incarnation, is said by the transport's envelope.
#
# Roles: N any node, M a monitor (recovery/groups.h), A an anchor, L the anchor that leads, F one that follows, C one that stands
# for election.
#
# What a reader refuses, of any root: more than one segment, bytes that are too few or too many; a struct with fewer fields
# than here (one that is not there has none), so that nothing is taken for 0 because it was lost; an unknown kind or standing; a
# node 0 where a node is listed, a node listed twice; a weight that is none, or of who has no pages to keep; incarnation 0 of a node that is listed, where it is not said to mean
# something; a negative time; more than 100 votes of a node; a disk that is behind since a view that is yet to come, or, of a
# member of the view, since this one; and the lengths that are given below. A list that says so is in ascending order of its nodes.
#
# What may stand in a log beyond that, recovery/raft_check.cc decides.

using Cxx = import "/capnp/c++.capnp";
$Cxx.namespace("mangrove::recovery_wire");

struct Message {
  union {
    raft @0 :Raft;                # A→A. The log.
    pulse @1 :Pulse;              # N→A, N→M. I am here.
    pulseAnswer @2 :PulseAnswer;  # A→N, M→N. Who leads; from L, or for it: a lease.
    viewPart @3 :ViewPart;        # L→N, M→N. Before the answer, to who is far behind: the newest view, whole.
    viewChange @5 :ViewChange;    # L→N, M→N. Before the answer, to who does not know the newest view.
    pulseBatch @6 :PulseBatch;    # M→L. The members of my group are here.
    answerBatch @7 :AnswerBatch;  # L→M. Answers pulseBatch; M makes a pulseAnswer of each.
    greeting @4 :Greeting;        # A→A. Before a log begins.
    nodeRequest @8 :NodeRequest;  # N→L. What an operator wants done with a node; again until the view or the roster says so.
    rosterPart @9 :RosterPart;    # A→N. Before the answer, to who does not know the nodes as they are.
    stopping @10 :Stopping;       # N→N. N ends in order; again and again until it has. Level 3: not to nodes of an earlier one.
  }
}

struct Pulse {
  sentAtNs @0 :Int64;
  # By N's clock.

  epoch @1 :UInt64;
  # Of the newest view that N knows whole.

  unreachable @2 :List(UInt64);
  # Members of that view with which N has had no connection for a while. At most 64.

  blank @3 :Bool;
  # N's disk was empty when N started.

  caughtUp @4 :Bool;
  # N's disk has all of its pages that was ever acknowledged, as of now.

  moved @5 :UInt64;
  # N's disk has all that it is to keep after the move that began with that view. 0: it says nothing of it.

  roster @6 :UInt64;
  # N knows the nodes as they are after that change of theirs (Node.changed). 0: as its configuration says.

  knowsWeights @7 :Bool;
  # N goes by the weights of disks. Level 2: nodes of level 1 leave this and the next out.

  diskMib @8 :UInt32;
  # What pages may take of N's disk, in MiB: what they take, and what is free. 0: N says nothing of it.

  leaves @9 :Bool;
  # N has given its lease up, and serves nothing any more, as this incarnation for ever. Level 3: a pulse that says so is not sent to
  # nodes of an earlier one, which would give N a lease for it.

  diskUsed @10 :UInt16;
  # Of diskMib, what pages take, in thousandths, and 1: 1 to 1001. 0: N says nothing of it. Level 4: nodes of an earlier one leave it
  # out, and pass it over.
}

struct PulseAnswer {
  leaseFromNs @0 :Int64;
  # The time of the pulse that is answered: N's lease runs from then on, by N's clock. 0: none is given.

  epoch @1 :UInt64;
  # Of the newest view; of an anchor that does not lead, 0.

  leader @2 :UInt64;
  # Of the anchors, as far as A knows. 0: there is none.

  isGone @3 :Bool;
  # N's incarnation was in the view and is not any more: it must start anew.

  to @4 :UInt64;
  # N's incarnation.

  isRemoved @5 :Bool;
  # N is out of the cluster for good.
}

struct ViewPart {
  epoch @0 :UInt64;

  first @1 :UInt32;
  # How many nodes are in the parts before.

  isLast @2 :Bool;

  nodes @3 :List(ViewNode);
  # Ascending. At most 340; of all parts at most 4096.

  root @4 :UInt64;
  # One of the view's members.

  move @5 :UInt64;
  # Since which view pages move. 0: they do not.
}

struct ViewNode {
  # Of a view: a member, or a node of which the view says something else, or both.
  node @0 :UInt64;

  incarnation @1 :UInt64;
  # 0: it is not in the view.

  behind @2 :UInt64;
  # Since which view its disk is behind: the first without the node. 1: it had nothing to begin with. 0: it is current.

  isDisk @3 :Bool;
  # It keeps pages.

  isNextDisk @4 :Bool;
  # Pages move, and it keeps some afterwards.

  hasMoved @5 :Bool;
  # It does, and has all of these.

  isDraining @6 :Bool;
  # It is to leave for good, and to keep no pages before.

  isLost @7 :Bool;
  # It never comes back, nor what is on its disk.

  weight @8 :UInt8;
  # Of a disk, how much it keeps beside others: 1 to 15. 0: 16, the full weight, as all have where weights are not known.

  nextWeight @9 :UInt8;
  # The same, of one that keeps pages when they have moved.
}

struct PulseBatch {
  pulses @0 :List(RelayedPulse);
  # At most 64, of as many nodes. They name at most 512 unreachable nodes, all together.
}

struct RelayedPulse {
  from @0 :Instance;
  pulse @1 :Pulse;
}

struct AnswerBatch {
  epoch @0 :UInt64;
  leader @1 :UInt64;
  # As in PulseAnswer, of each answer.

  answers @2 :List(RelayedAnswer);
  # At most 64, to as many nodes.
}

struct RelayedAnswer {
  to @0 :Instance;

  leaseFromNs @1 :Int64;
  isGone @2 :Bool;
  # As in PulseAnswer.
}

struct NodeRequest {
  kind @0 :Kind;

  enum Kind {
    drain @0;
    undrain @1;
    giveUp @2;

    add @3;
    # `record`: there is a node of that name. L finds a number for it.

    set @4;
    # `record`: the node's address and votes.
  }

  node @1 :UInt64;
  # 0 with add, and then alone.

  record @2 :Node;
  # Of add and set, and then alone; its `node`, `last`, `left` and `isRemoved` are not read. `changed`: of set, as N knows the node.

  group @3 :UInt64;
  # Of add: where it is to be. All ones: anywhere.
}

struct RosterPart {
  after @0 :UInt64;
  version @1 :UInt64;
  # Those that have changed behind `after`, up to `version`, which is higher.

  isLast @2 :Bool;

  nodes @3 :List(Node);
  # Ascending by `changed`; the last one's is `version`. At least 1, at most 128. `last` and `left` are 0, and not read.

  oldest @4 :UInt64;
  # The lowest `changed` of all nodes, of these and others: at most that of the first here. A node that one knows with a lower one is of an
  # earlier log.
}

struct Greeting {
  hasVoted @0 :Bool;
  # In an election, or may have, on a disk that is gone.

  asks @1 :Bool;
  # Have you?
}

struct Stopping {
  flushes @0 :Bool;
  # N still has to write back what is nowhere else: who can wait with its own end does.
}

struct Instance {
  # One start of one node.
  node @0 :UInt64;
  incarnation @1 :UInt64;
}

# --- The log ----------------------------------------------------------------------------------------------------------

enum Standing {
  # How far an anchor may vote.
  full @0;
  mustLoseVote @1;
  mayGainVote @2;
}

struct Raft {
  # The union of all kinds' fields. What a kind does not name has its default.

  kind @0 :Kind;

  enum Kind {
    voteRequest @0;
    # C→A. Vote for me. `index`, `indexTerm`: where my log ends. `preVote`: would you? `handOver`: the leader wants it.

    voteAnswer @1;
    # A→C. `yes`, `preVote` as in the request.

    append @2;
    # L→F. `entries` follow the entry at `index`, which is of `indexTerm`. `commit`, `sentAtNs`, `mark`.

    appended @3;
    # F→L. Answers append. `yes`: our logs share what is up to `index`; no: they may share that. `standing`, `mark`, `sentAtNs`.

    snapshot @4;
    # L→F. `bytes` of the snapshot of `index`, `indexTerm` and `votes`, from `offset` on. `isLast`, `sentAtNs`.

    snapshotTaken @5;
    # F→L. Answers snapshot: `index` and `offset` are wanted next. `standing`, `mark`, `sentAtNs`.

    takeOver @6;
    # L→F. Stand for election now.
  }

  term @1 :UInt64;
  # The sender's; of a pre-vote's request, and its answer with yes, the one that the candidate would begin.

  index @2 :UInt64;
  indexTerm @3 :UInt64;
  commit @4 :UInt64;

  entries @5 :List(Entry);
  # The sender takes up to 8 KiB of them.

  votes @6 :List(Vote);
  # Ascending. At most 64.

  offset @7 :UInt64;

  bytes @8 :Data;
  # The sender takes up to 8 KiB of them.

  isLast @9 :Bool;
  preVote @10 :Bool;
  handOver @11 :Bool;
  yes @12 :Bool;

  sentAtNs @13 :Int64;
  # By the clock of who asks, of a request; echoed by its answer.

  standing @14 :Standing;
  # Of who answers.

  mark @15 :UInt64;
  # Of who answers and must lose its vote: names this run of it. In append: its vote is gone for certain.
}

struct Vote {
  node @0 :UInt64;
  votes @1 :UInt32;
}

struct Entry {
  term @0 :UInt64;

  union {
    nothing @1 :Void;
    # The first of a leader's term.

    command @2 :Data;
    # The bytes of a Command.

    votes @3 :List(Vote);
    # Those that count from here on. Ascending. At most 64.
  }
}

struct Snapshot {
  # What all entries up to `index` have come to.

  index @0 :UInt64;

  term @1 :UInt64;
  # Of the last of these entries.

  votes @2 :List(Vote);
  # At that place. Ascending. At most 64.

  state @3 :Data;
  # The bytes of a Database; nothing where nothing has been applied.
}

struct LogState {
  # What an anchor keeps beside its log.

  term @0 :UInt64;

  vote @1 :UInt64;
  # In that term. 0: for nobody.

  standing @2 :Standing;
}

# --- What the log is about --------------------------------------------------------------------------------------------

struct Command {
  union {
    setNode @0 :Node;
    # It is in the cluster, with this name, address and votes, and, where it is new, identity. `last` and `left` are 0 here, and not
    # read; the change has the number of `changed`, if that is above all before.

    removeNode @1 :UInt64;

    changeView @2 :ViewChange;
  }
}

struct Node {
  node @0 :UInt64;

  name @1 :Text;
  # 1 to 300 bytes.

  address @2 :Text;
  # "host:port". At most 300 bytes.

  votes @3 :UInt32;
  # More than 0: it is an anchor.

  last @4 :UInt64;
  # The newest incarnation that was ever in a view.

  left @5 :UInt64;
  # The view that was the first one without it, the last time. 0: it has left none.

  isRemoved @6 :Bool;
  # It was taken out of the cluster, and does not come back.

  space @7 :UInt64;
  time @8 :UInt64;
  # Its identity: a hash of the address with which it was made, and when that was, in nanoseconds since 1970.

  changed @9 :UInt64;
  # The number of the last change of what is above, but for `last` and `left`.
}

struct ViewChange {
  # What makes the view of `epoch` of the one before it: of 1 to 128 nodes, as ViewChange::size counts; each named once in `joins`,
  # `leaves` and `caughtUp`, and once in each other list.

  epoch @0 :UInt64;

  joins @1 :List(Instance);
  # Each in the place of an older incarnation of its node, if that is there.

  leaves @2 :List(UInt64);

  blank @3 :List(UInt64);
  # Of those that join: whose disk is empty. Each is among `joins`.

  caughtUp @4 :List(UInt64);
  # Members whose disks are current from this view on.

  place @5 :List(UInt64);
  # Are to keep pages, besides those that are to or do.

  unplace @6 :List(UInt64);
  # Are to keep none.

  moved @7 :List(UInt64);
  # Of those that are to keep pages: have all of theirs.

  placed @8 :Bool;
  # Those that are to keep pages are the ones that do from this view on.

  drain @9 :List(UInt64);
  undrain @10 :List(UInt64);
  # Are to leave for good; or not any more.

  lost @11 :List(UInt64);
  # Never come back.

  weigh @12 :List(DiskWeight);
  # Of those that are to keep pages: are to have these weights. Level 2: a change of level 1 has not this list. One that changes
  # weights changes nothing that level 1 knows, unless nodes come to keep pages, or keep none any more.
}

struct DiskWeight {
  node @0 :UInt64;

  weight @1 :UInt8;
  # 1 to 16.
}

struct Database {
  nodes @0 :List(Node);
  # Ascending. At most 4096. No two have the same `changed`, but for 0.

  epoch @1 :UInt64;
  # Of the view. 0: before the first, with nobody in it.

  view @2 :List(ViewNode);
  # Ascending. Each is among the nodes; its incarnation is not newer than its `last`, and who is behind has a `last`. Of the nodes
  # with a `last` all that are not in the view are behind, but for those that were removed.

  root @3 :UInt64;
  # Of the view: one of its members. 0: it has none.

  move @4 :UInt64;
  # Of the view, as in ViewPart.
}
